"""Sizes, flags and names, and printing of whole objects."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from btrfs import ctree, utils
from btrfs.crc32c import crc32c, crc32c_data, extref_hash, name_hash


@given(st.integers(0, 1 << 64), st.booleans())
def test_size_is_within_its_rounding(size: int, binary: bool) -> None:
    text = utils.pretty_size(size, binary=binary)
    number, unit = float(text.rstrip("KMGTPEiB")), text.lstrip("0123456789.")
    base = 1024 if binary else 1000
    power = utils.pretty_size_units.index(unit[0]) if unit != "B" else 0
    assert abs(number * base**power - size) <= 0.0051 * base**power
    # The unit is chosen before rounding, as in python-btrfs: 1024.00MiB, less than 1 GiB; and by
    # powers of 1024 even if it is a decimal one.
    assert number <= 1024 * (1024 / base) ** power or power == len(utils.pretty_size_units) - 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0,), "0.00B"),
        ((1023,), "1023.00B"),
        ((1536,), "1.50KiB"),
        ((10**6, "M"), "0.95MiB"),
        ((10**6, ""), "1000000"),
        ((10**6, "k"), "976.56KiB"),
        ((10**6, "k", False), "1000.00kB"),
        ((1 << 63,), "8.00EiB"),
    ],
)
def test_size(arguments: tuple[int], text: str) -> None:
    assert utils.pretty_size(*arguments) == text


@given(st.integers(0, 1 << 60), st.sampled_from(["", "B", "k", "Ki", "M", "GiB", "TB", "E"]))
def test_sizes_are_parsed(number: int, unit: str) -> None:
    letter = unit.strip("iB").upper()
    factor = (1024 if "i" in unit else 1000) ** ("_KMGTPE".index(letter) if letter else 0)
    assert utils.parse_pretty_size(f"{number}{unit}") == number * factor


@pytest.mark.parametrize("text", ["", "x", "1.5G", "3 M", "-1", "1X", "1GG"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        utils.parse_pretty_size(text)


@pytest.mark.parametrize(
    ("flags", "texts"),
    [
        (0, ("none", "none", "none", "unknown, single")),
        (0x1, ("DATA", "DATA", "none", "Data, single")),
        (0x11, ("DATA|RAID1", "DATA", "RAID1", "Data, RAID1")),
        (0x25, ("DATA|METADATA|DUP", "DATA|METADATA", "DUP", "Data+Metadata, DUP")),
        (1 << 49, ("unknown(0x2000000000000)", "none", "none", "GlobalReserve, single")),
        ((1 << 20) | 1, ("DATA|unknown(0x100000)", "DATA", "none", "Data, single")),
    ],
)
def test_block_group_flags(flags: int, texts: tuple[str, ...]) -> None:
    assert texts == (
        utils.block_group_flags_str(flags),
        utils.block_group_type_str(flags),
        utils.block_group_profile_str(flags),
        utils.space_flags_description(flags),
    )


@pytest.mark.parametrize(
    ("name", "tree"),
    [
        ("1", 1),
        ("extent", 2),
        ("CHUNK_TREE", 3),
        ("Root", 1),
        ("data_reloc", 2**64 - 9),
        ("-9", 2**64 - 9),
    ],
)
def test_tree_names(name: str, tree: int) -> None:
    assert utils.parse_tree_name(name) == tree


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("foo", "Unknown metadata tree name foo"),
        (str(1 << 64), f"Unknown metadata tree {1 << 64}: {1 << 64} does not fit into 64 bits"),
    ],
)
def test_no_such_tree_name(name: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        utils.parse_tree_name(name)


@pytest.mark.parametrize(
    ("text", "printed"),
    [(b"abc", "utf-8 'abc'"), (b"\xff", "raw 'b'\\xff''"), (b"", "<empty>")],
)
def test_embedded_text(text: bytes, printed: str) -> None:
    assert utils.embedded_text_for_str(text) == printed


def test_containers_are_walked() -> None:
    key = ctree.Key(5, 1, 9)
    lines = list(utils.pretty_lines({"a": {"b": [1, key]}}))
    assert lines == [
        "a:",
        "  b:",
        "    -",
        "      1",
        "    -",
        "      <btrfs.ctree.Key>",
        "      (FS_TREE INODE_ITEM 9)",
    ]


def test_hashes_of_names() -> None:
    assert name_hash("default") == name_hash(b"default") == 2378154706
    assert extref_hash(256, "abc") == 1166869690
    assert crc32c(0, b"abc") == 1445960909
    assert crc32c_data(b"abc") == 910901175
