"""What the colours of the map mean.

There are two kinds of colourings. One looks at block groups, whose numbers are known from the
beginning. The other looks at extents, which are read when they are needed; its first few values
are about what is no extent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrfs import utils
from btrfs.ondisk import constants
from btrfs_atlas.explorer.model.extent_cache import UNREADABLE_TYPE, Extents, Trees
from heatmap import layers, scales
from heatmap.extents import references, types
from heatmap.extents.compression import COMPRESSIONS
from heatmap.palette import UNREADABLE, UNREADABLE_COLOUR, Palette, palette

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem

NAMES = {
    "type": "type",
    "fill": "how full",
    "age": "age",
    "owner": "owner",
    "sharing": "sharing",
    "compression": "compression",
    "profile": "profile",
}
"""The colourings, and what to call them."""

EXTENTS_BELOW = 256 << 10
"""Types are those of extents where a pixel has at most so many bytes; else of block groups."""

UNREADABLE_VALUE, UNREAD, PARITY, FIRST = range(4)
"""Values of every colouring by extents; the others come behind."""

_SPECIAL = {UNREADABLE: UNREADABLE_COLOUR, "not read yet": 0x4A4E57, "parity": 0x8C7A5B}

_MAX_VALUE = (1 << 16) - 1

_AGES = 64
_FILLS = 20
_SHARING = ("1", "2", "3 or 4", "5 to 8", "9 to 16", "17 to 64", "65 to 256", "more than 256")
_SHARING_UP_TO = np.array([1, 2, 4, 8, 16, 64, 256])


@dataclass(frozen=True, slots=True)
class ByGroup:
    """Colours of block groups.

    Attributes:
        palette: the colours, a value each.
        value: which value a block group has.
        is_scale: the colours are the steps of a scale, the lowest first.
        shows_used: how bright it is says how full it is.
        note: what there is to know about it.
    """

    palette: Palette
    value: Callable[[BlockGroupItem], int]
    is_scale: bool = False
    shows_used: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class ByExtent:
    """Colours of extents.

    Attributes:
        palette: returns the colours; of owners there can be more each time.
        own_values: which value each extent has, not counting the special ones, as uint16.
        is_scale: the colours are the steps of a scale, the lowest first.
        compressed: it has to be known how extents are compressed.
        unread: how a block group is shown until its extents have been read. None: as UNREAD.
        note: what there is to know about it.
    """

    palette: Callable[[], Palette]
    own_values: Callable[[Extents], NDArray[np.integer]]
    is_scale: bool = False
    compressed: bool = False
    unread: ByGroup | None = None
    note: str = ""

    def values(self, extents: Extents) -> NDArray[np.uint16]:
        """Return the value of each extent."""
        own = self.own_values(extents).astype(np.int64)
        value = np.minimum(own + FIRST, _MAX_VALUE).astype(np.uint16)
        value[extents.type == UNREADABLE_TYPE] = UNREADABLE_VALUE
        return value


class Colourings:
    """The colourings of a filesystem.

    Args:
        trees: numbers the trees that own extents.
        generation: the newest there is.

    Attributes:
        newest: the generation at which the scale of ages ends. There is some room for newer ones,
            as all colours change with it.
    """

    def __init__(self, trees: Trees, generation: int) -> None:
        self._trees = trees
        self.newest = generation + generation // _AGES + 1
        types_of_groups = ByGroup(
            layers.BLOCK_GROUPS,
            layers.block_group_value,
            shows_used=True,
            note="block groups: the brighter, the fuller; zoom in to see extents",
        )
        self._by_group = {
            "type": types_of_groups,
            "fill": _fill(),
            "profile": _profile(),
        }
        self._by_extent = {
            "type": ByExtent(
                _types,
                lambda extents: extents.type,
                unread=types_of_groups,
                note="extents, by what they hold",
            ),
            "age": ByExtent(
                self._ages,
                lambda extents: scales.steps_of(extents.generation, 0, self.newest, _AGES),
                is_scale=True,
                note="by generation: the commit in which an extent was made",
            ),
            "owner": ByExtent(
                self._owners,
                lambda extents: extents.owner,
                note="as the references of an extent tell; where subvolumes share tree blocks, the"
                " one that they were written for",
            ),
            "sharing": ByExtent(
                _sharing,
                lambda extents: np.searchsorted(_SHARING_UP_TO, extents.refs),
                is_scale=True,
                note="references to an extent; a tree block that is shared counts once",
            ),
            "compression": ByExtent(
                _compressions,
                _compression_values,
                compressed=True,
                note="of data, by the files that use it",
            ),
        }

    def colouring(self, name: str, bytes_per_pixel: float) -> ByGroup | ByExtent:
        """Return a colouring, as it is where a pixel has so many bytes.

        Raises:
            ValueError: There is none of this name.
        """
        if name not in NAMES:
            raise ValueError(f"unknown colour {name!r} (there are {', '.join(NAMES)})")
        if name == "type":
            is_deep = bytes_per_pixel <= EXTENTS_BELOW
            return self._by_extent[name] if is_deep else self._by_group[name]
        return self._by_extent.get(name) or self._by_group[name]

    def _ages(self) -> Palette:
        return _with_special(scales.labels(0, self.newest, _AGES), scales.sequential(_AGES))

    def _owners(self) -> Palette:
        numbers = list(self._trees.numbers)
        further = scales.categorical(len(numbers))
        colours = np.array(
            [
                _TREE_COLOURS[number] if number in _TREE_COLOURS else further[index]
                for index, number in enumerate(numbers)
            ],
            dtype=np.uint8,
        )
        return _with_special([str(number) for number in numbers], colours)


def _with_special(names: list[str], colours: NDArray[np.uint8]) -> Palette:
    """Return a palette that begins with the special values."""
    special = palette(_SPECIAL)
    return Palette(
        (*special.names, *names), np.concatenate([special.colours, colours]), UNREADABLE_VALUE
    )


def _types() -> Palette:
    return _with_special(list(types.EXTENTS.names), types.EXTENTS.colours)


def _sharing() -> Palette:
    return _with_special(list(_SHARING), scales.sequential(len(_SHARING)))


def _compressions() -> Palette:
    return _with_special(list(COMPRESSIONS.names), COMPRESSIONS.colours)


def _compression_values(extents: Extents) -> NDArray[np.uint8]:
    assert extents.compression is not None
    return extents.compression


def _fill() -> ByGroup:
    names = [f"{100 * step // _FILLS} to {100 * (step + 1) // _FILLS} %" for step in range(_FILLS)]

    def value(group: BlockGroupItem) -> int:
        if not group.length:
            return 0
        return min(_FILLS - 1, group.used * _FILLS // group.length)

    return ByGroup(
        _unhatched(names, scales.sequential(_FILLS)),
        value,
        is_scale=True,
        note="how much of a block group is in use",
    )


def _profile() -> ByGroup:
    flags = [0, *(1 << bit for bit in range(64) if constants.BLOCK_GROUP_PROFILE_MASK >> bit & 1)]
    names = [utils.block_group_profile_str(flag) if flag else "single" for flag in flags]

    def value(group: BlockGroupItem) -> int:
        profile = group.flags & constants.BLOCK_GROUP_PROFILE_MASK
        return flags.index(profile) if profile in flags else len(flags)

    return ByGroup(_unhatched([*names, "other"], scales.categorical(len(names) + 1)), value)


def _unhatched(names: list[str], colours: NDArray[np.uint8]) -> Palette:
    """Return a palette for block groups; the last value is what could not be read."""
    last = palette({UNREADABLE: UNREADABLE_COLOUR})
    return Palette((*names, *last.names), np.concatenate([colours, last.colours]), len(names))


def _tree_colours() -> dict[int, NDArray[np.uint8]]:
    """Return the colours of trees that are no subvolumes, those that types have, too."""
    named = dict(zip(types.EXTENTS.names, types.EXTENTS.colours, strict=True))
    grey, white = np.array([0x80, 0x80, 0x80], np.uint8), np.array([0xFF] * 3, np.uint8)
    return {
        references.SEVERAL: white,
        references.UNKNOWN: grey,
        constants.ROOT_TREE_OBJECTID: named["root tree"],
        constants.EXTENT_TREE_OBJECTID: named["extent tree"],
        constants.CHUNK_TREE_OBJECTID: named["chunk tree"],
        constants.DEV_TREE_OBJECTID: named["device tree"],
        constants.CSUM_TREE_OBJECTID: named["checksum tree"],
        constants.QUOTA_TREE_OBJECTID: named["quota tree"],
        constants.UUID_TREE_OBJECTID: named["UUID tree"],
        constants.FREE_SPACE_TREE_OBJECTID: named["free space tree"],
        constants.DATA_RELOC_TREE_OBJECTID: named["data relocation tree"],
    }


_TREE_COLOURS = _tree_colours()
