"""Lies in the trees that have addresses for keys: a filesystem to put them in, and what they are.

The tables of lies are in test_check_extents.py, test_check_free_space.py and the like.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from btrfs.check import Finding
from btrfs.ondisk.constants import EXTENT_DATA_REF_KEY, EXTENT_ITEM_KEY, EXTENT_TREE_OBJECTID
from tests import support
from tests.lab.damage import copy_image
from tests.lab.lies import ItemKey, Liar
from tests.library.findings import findings
from tests.support.clean import complaints

__all__ = ["Lie", "assert_found", "findings", "make_shared", "only"]

CLONES = 300


class Lie(NamedTuple):
    """A change of a filesystem.

    Attributes:
        tell: Makes it.
        kinds: The kinds of all findings.
        why: A part of the first message of the first of these kinds.
        seen: Whether `btrfs check` of btrfs-progs 6.2 reports an error, of whatever kind.
    """

    tell: Callable[[Liar], object]
    kinds: Sequence[str]
    why: str = ""
    seen: bool = True


def make_shared(folder: Path, **options: Any) -> Path:
    """Return the image of a small filesystem with back references of all kinds."""
    with support.filesystem(
        folder, size="256M", nodesize=4096, metadata="single", data="single", **options
    ) as fs:
        work = fs.mountpoint / "work"
        fs.btrfs("subvolume", "create", work)
        (work / "many").write_bytes(os.urandom(64 << 10))
        (work / "two").write_bytes(os.urandom(16 << 10))
        for number in range(200):
            (work / f"file {number}").write_bytes(os.urandom(4096))
        fs.sync()
        support.run("cp", "--reflink=always", work / "two", work / "second")
        for number in range(CLONES):
            support.run("cp", "--reflink=always", work / "many", work / f"clone {number}")
        fs.btrfs("subvolume", "snapshot", work, fs.mountpoint / "snapshot")
        fs.sync()
        # What was shared and is changed refers to what is below it by address.
        for number in range(0, 200, 9):
            (fs.mountpoint / "snapshot" / f"file {number}").write_bytes(os.urandom(8192))
            (work / f"file {number}").unlink()
        fs.sync()
    return fs.images[0]


def assert_found(sound: Path, folder: Path, lie: Lie) -> list[Finding]:
    """Check that a lie is found, and nothing else; return the findings."""
    image = folder / "lie.img"
    copy_image(sound, image)
    lie.tell(Liar([image]))
    found = findings(image)
    assert {finding.kind for finding in found} == set(lie.kinds), list(map(str, found))
    messages = [str(finding) for finding in found if finding.kind == lie.kinds[0]]
    assert any(lie.why in message for message in messages), messages
    assert bool(complaints([image])) == lie.seen, "btrfs check"
    return found


# Items to choose from.


def only(liar: Liar, tree: int, key_type: int, index: int = 0) -> ItemKey:
    """Return the key of an item of a type."""
    return liar.keys(tree, key_type)[index]


def data_extent(liar: Liar, types: Sequence[int]) -> ItemKey:
    """Return the key of a data extent whose inline references are of these types."""
    for key, body in liar.items(EXTENT_TREE_OBJECTID):
        if key.type == EXTENT_ITEM_KEY and body[16] & 1 and inline_types(body) == list(types):
            return key
    raise AssertionError(f"no data extent with references of {types}")


def inline_types(body: bytes, at: int = 24) -> list[int]:
    """Return the types of the inline references."""
    sizes = {172: 9, 176: 9, 182: 9, 178: 29, 184: 13}
    types = []
    while at < len(body):
        types.append(body[at])
        at += sizes[body[at]]
    return types


def keyed_extent(liar: Liar) -> ItemKey:
    """Return the key of the first back reference of a file that is an item of its own."""
    return only(liar, EXTENT_TREE_OBJECTID, EXTENT_DATA_REF_KEY)


def data_ref(root: int, inum: int, offset: int, count: int) -> bytes:
    """Return the body of a back reference of a file."""
    return struct.pack("<QQQI", root, inum, offset, count)
