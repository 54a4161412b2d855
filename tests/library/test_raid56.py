"""What is lost of a row of RAID5 or RAID6 is worked out from the rest."""

from __future__ import annotations

from hypothesis import given, strategies as st

from btrfs.source.disk.raid56 import parity, reconstructions

ROWS = st.integers(1, 8).flatmap(
    lambda length: st.lists(st.binary(min_size=length, max_size=length), min_size=1, max_size=12)
)


def slow_product(a: int, b: int) -> int:
    """Multiply two elements of the field bit by bit."""
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a, b = a << 1, b >> 1
        a ^= 0x11D if a > 255 else 0
    return product


@given(ROWS)
def test_parity_is_what_its_definition_says(data: list[bytes]) -> None:
    p, q = parity(data)
    for at in range(len(p)):
        sum_p, sum_q, power = 0, 0, 1
        for part in data:
            sum_p ^= part[at]
            sum_q ^= slow_product(power, part[at])
            power = slow_product(power, 2)
        assert (p[at], q[at]) == (sum_p, sum_q)


@given(ROWS, st.data())
def test_one_lost_stripe(data: list[bytes], draw: st.DataObject) -> None:
    index = draw.draw(st.integers(0, len(data) - 1))
    p, q = parity(data)
    rest = [*data[:index], None, *data[index + 1 :]]
    assert list(reconstructions(rest, p, None, index)) == [data[index]]
    assert list(reconstructions(rest, None, q, index)) == [data[index]]
    # By P and by Q; they agree, so there is no other way.
    assert list(reconstructions(rest, p, q, index)) == [data[index]] * 2
    assert list(reconstructions(rest, None, None, index)) == []


@given(ROWS.filter(lambda data: len(data) > 1), st.data())
def test_two_lost_stripes(data: list[bytes], draw: st.DataObject) -> None:
    index, other = draw.draw(st.permutations(range(len(data))))[:2]
    p, q = parity(data)
    rest = [None if i in (index, other) else part for i, part in enumerate(data)]
    assert list(reconstructions(rest, p, q, index)) == [data[index]]
    assert list(reconstructions(rest, p, None, index)) == []
    assert list(reconstructions(rest, None, q, index)) == []


@given(ROWS.filter(lambda data: len(data) > 1), st.data())
def test_another_stripe_is_wrong_and_nobody_knows(data: list[bytes], draw: st.DataObject) -> None:
    index, other = draw.draw(st.permutations(range(len(data))))[:2]
    p, q = parity(data)
    found = list(data)
    found[other] = bytes(byte ^ 0x5A for byte in data[other])
    assert data[index] in reconstructions(found, p, q, index)
    # As it is where a parity is wrong.
    assert data[index] in reconstructions(data, bytes(len(p)), q, index)
    assert data[index] in reconstructions(data, p, bytes(len(q)), index)


def test_three_lost_stripes() -> None:
    data = [b"a", b"b", b"c", b"d"]
    p, q = parity(data)
    assert list(reconstructions([None, None, None, b"d"], p, q, 0)) == []
