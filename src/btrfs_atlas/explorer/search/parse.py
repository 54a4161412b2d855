"""What is asked for: from the text of a query to what it names.

/home/fred/notes        a path
inode 257, inode 257 in 256, inode 257 in home/fred
vaddr 30408704, or only the number, or 0x1d00000: the extent that holds this address
group 30408704          the block group that begins there
subvolume 256, subvolume home/fred
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from btrfs.ondisk import constants
from btrfs_atlas.explorer.search.errors import USAGE, FindError

__all__ = [
    "AddressQuery",
    "GroupQuery",
    "InodeQuery",
    "PathQuery",
    "Query",
    "SubvolumeQuery",
    "number_of",
    "parse",
    "spellings",
]


@dataclass(frozen=True, slots=True)
class PathQuery:
    """The file, directory or the like that a path leads to.

    Attributes:
        text: The path as it was typed.
        begins_with_keyword: Whether it may be another query that is misspelt.
    """

    text: str
    begins_with_keyword: bool


@dataclass(frozen=True, slots=True)
class InodeQuery:
    """An inode by its number.

    Attributes:
        inum: Its number.
        subvolume: Number or path of its subvolume, if given.
    """

    inum: int
    subvolume: str | None


@dataclass(frozen=True, slots=True)
class AddressQuery:
    """The extent that holds a virtual address."""

    vaddr: int


@dataclass(frozen=True, slots=True)
class GroupQuery:
    """The block group that begins at a virtual address."""

    vaddr: int


@dataclass(frozen=True, slots=True)
class SubvolumeQuery:
    """All that the files of a subvolume use, by its number or path."""

    subvolume: str


Query: TypeAlias = PathQuery | InodeQuery | AddressQuery | GroupQuery | SubvolumeQuery


def parse(text: str) -> Query:
    """Return what a query names.

    Raises:
        FindError: It is empty, too long, or has a number that does not fit into 64 bits.
    """
    words = text.split()
    if not words:
        raise FindError("there is nothing to find", hint=USAGE)
    if len(text) > _MAX_LENGTH:
        raise FindError(f"a query has at most {_MAX_LENGTH:,} characters", hint=USAGE)
    for pattern, make in _FORMS:
        if match := pattern.fullmatch(text.strip()):
            return make(match)
    return PathQuery(text, words[0].lower() in _KEYWORDS)


def number_of(text: str) -> int | None:
    """Return the number that a text is, decimal or 0x...; None if it is none.

    Raises:
        FindError: It does not fit into 64 bits.
    """
    return _number(text) if re.fullmatch(_NUMBER, text, re.IGNORECASE) else None


def spellings(text: str) -> list[bytes]:
    r"""Return what a text can stand for as a path: as it is, or with ``\xNN`` made into bytes.

    Raises:
        FindError: It cannot be the name of a file.
    """
    try:
        exact = os.fsencode(text)
    except UnicodeEncodeError:
        raise FindError("this is no text", hint=USAGE) from None
    unescaped = _ESCAPE.sub(lambda match: _unescaped(match[1]), exact)
    return list(dict.fromkeys([exact, unescaped, exact.strip()]))


def _number(text: str) -> int:
    number = int(text, 16 if text[:2].lower() == "0x" else 10)
    if number > constants.ULLONG_MAX:
        raise FindError(f"{text} does not fit into 64 bits", hint=USAGE)
    return number


def _unescaped(escape: bytes) -> bytes:
    return _ESCAPED.get(escape) or bytes([int(escape[1:], 16)])


_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[nrt])")
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}

_MAX_LENGTH = 8192
_KEYWORDS = ("inode", "vaddr", "group", "subvolume")
_NUMBER = r"(0x[0-9a-f]{1,16}|[0-9]{1,20})"

_MAKERS: dict[str, Callable[[re.Match[str]], Query]] = {
    rf"inode\s+{_NUMBER}(?:\s+in\s+(.+))?": lambda match: InodeQuery(_number(match[1]), match[2]),
    rf"(?:vaddr\s+)?{_NUMBER}": lambda match: AddressQuery(_number(match[1])),
    rf"(?:block\s+)?group\s+{_NUMBER}": lambda match: GroupQuery(_number(match[1])),
    r"subvol(?:ume)?\s+(.+)": lambda match: SubvolumeQuery(match[1]),
}
_FORMS = [
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), make) for pattern, make in _MAKERS.items()
]
