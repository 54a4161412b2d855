"""RAID5 and RAID6: what one stripe of a row was, worked out from the other stripes of the row.

P is the exclusive or of the row's data. Q is the sum of g^i times the data of stripe i, in the
field of 256 elements with the polynomial 0x11d, where g = 2 (H. Peter Anvin, "The mathematics of
RAID-6"; lib/raid6 in the kernel). Any two of a row's unknowns can be found from the rest.

Which stripe is wrong besides is not known, so all that could be is tried: the caller tells right
from wrong by a checksum.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["parity", "reconstructions"]

_POLYNOMIAL = 0x11D
_ORDER = 255


def reconstructions(
    data: Sequence[bytes | None], p: bytes | None, q: bytes | None, index: int
) -> Iterator[bytes]:
    """Yield what the data of a stripe can have been, one way after the other.

    Args:
        data: The same range of all stripes of data in the row; None for what cannot be read.
        p: That range of the parity P, and
        q: of Q; None where there is none.
        index: Which stripe of data is wanted. What is in its place is not used.
    """
    known = {i: part for i, part in enumerate(data) if part is not None and i != index}
    unknown = [i for i in range(len(data)) if i != index and i not in known]
    if len(unknown) > 1:
        return
    # What is left of P and Q when all that is known is taken away from them.
    p_rest = None if p is None else _xor([p, *known.values()])
    q_rest = None if q is None else _xor([q, *(_times_g(part, i) for i, part in known.items())])
    if not unknown:
        by_p = p_rest
        by_q = None if q_rest is None else _times_g(q_rest, -index)
        yield from (part for part in (by_p, by_q) if part is not None)
        if by_p == by_q:
            # Whatever else is given up, it stays the same.
            return
    if p_rest is None or q_rest is None:
        return
    for other in unknown or known:
        both_p, both_q = p_rest, q_rest
        if other in known:
            both_p = _xor([p_rest, known[other]])
            both_q = _xor([q_rest, _times_g(known[other], other)])
        # P' = D + E and Q' = g^index D + g^other E, so D = (Q' + g^other P') / (g^index + g^other).
        divisor = _powers()[index % _ORDER] ^ _powers()[other % _ORDER]
        if divisor:
            numerator = _xor([both_q, _times_g(both_p, other)])
            yield _times_g(numerator, -_logarithms()[divisor])


def parity(data: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return P and Q of the same range of all stripes of data in a row."""
    return _xor(data), _xor([_times_g(part, i) for i, part in enumerate(data)])


def _xor(parts: Iterable[bytes]) -> bytes:
    total, length = 0, 0
    for part in parts:
        total ^= int.from_bytes(part, "little")
        length = len(part)
    return total.to_bytes(length, "little")


def _times_g(part: bytes, exponent: int) -> bytes:
    """Return each byte multiplied by a power of g."""
    return part.translate(_multiples(exponent % _ORDER)) if exponent % _ORDER else part


@functools.cache
def _multiples(exponent: int) -> bytes:
    """Return what each byte becomes when it is multiplied by a power of g."""
    powers, logarithms = _powers(), _logarithms()
    multiples = [powers[(logarithms[byte] + exponent) % _ORDER] for byte in range(1, 256)]
    return bytes([0, *multiples])


@functools.cache
def _powers() -> list[int]:
    """Return g to the power of 0 to 254."""
    powers = [1]
    while len(powers) < _ORDER:
        doubled = powers[-1] << 1
        powers.append(doubled ^ _POLYNOMIAL if doubled > 255 else doubled)
    return powers


@functools.cache
def _logarithms() -> dict[int, int]:
    return {power: exponent for exponent, power in enumerate(_powers())}
