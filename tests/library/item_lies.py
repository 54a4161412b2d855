"""Lies about single items: what to change, what the check says, and whether the kernel agrees.

A `Lie` chooses an item of an image and changes it; the tables of lies are in test_check_items*.py.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btrfs.check import Finding
from btrfs.ondisk.key import Key
from tests import support
from tests.lab.damage import copy_image
from tests.lab.lies import ItemKey, Liar
from tests.library.findings import findings

Edit = Callable[[Liar, int, ItemKey], ItemKey]
"""Changes an item of a tree; returns the key that the finding names."""


@dataclass(frozen=True)
class Lie:
    """A change of one item.

    Attributes:
        tree: Number of the tree.
        key_type: Type of key of the item.
        edit: The change.
        why: What the check says of it.
        where: Chooses one of the items of the type, by key and body; by default the first.
        kind: Kind of the finding.
        refused: Whether the kernel does not read the leaf either.
    """

    tree: int
    key_type: int
    edit: Edit
    why: str
    where: Callable[[ItemKey, bytes], bool] = lambda _key, _body: True
    kind: str = "item-damaged"
    refused: bool = False

    def tell(self, image: Path) -> ItemKey:
        """Change an image; return the key that the finding names."""
        liar = Liar([image])
        items = [item for item in liar.items(self.tree) if item[0].type == self.key_type]
        key = next(key for key, body in items if self.where(key, body))
        return self.edit(liar, self.tree, key)


# Changes.


def put(code: str, at: int, *values: Any) -> Edit:
    """Return a change that writes numbers into the body."""

    def edit(liar: Liar, tree: int, key: ItemKey) -> ItemKey:
        liar.put(tree, key, code, at, *values)
        return key

    return edit


def add(code: str, at: int, number: int) -> Edit:
    """Return a change that adds to a number in the body."""

    def edit(liar: Liar, tree: int, key: ItemKey) -> ItemKey:
        liar.add(tree, key, code, at, number)
        return key

    return edit


def resize(by: int) -> Edit:
    """Return a change that cuts bytes off the body, or adds zeros to it."""

    def edit(liar: Liar, tree: int, key: ItemKey) -> ItemKey:
        body = liar.body(tree, key)
        liar.replace(tree, key, body[:by] if by < 0 else body + bytes(by))
        return key

    return edit


def rekey(objectid: int | None = None, offset: int | None = None, *, by: int = 0) -> Edit:
    """Return a change of the key: other parts, or an offset that something is added to."""

    def edit(liar: Liar, tree: int, key: ItemKey) -> ItemKey:
        new = ItemKey(
            key.objectid if objectid is None else objectid,
            key.type,
            (key.offset if offset is None else offset) + by,
        )
        # In this order, a leaf does not become empty.
        liar.insert(tree, new, liar.body(tree, key))
        liar.remove(tree, key)
        return new

    return edit


def insert(new: ItemKey, body: bytes) -> Edit:
    """Return a change that leaves the item as it is, and inserts another one."""

    def edit(liar: Liar, tree: int, _: ItemKey) -> ItemKey:
        liar.insert(tree, new, body)
        return new

    return edit


def replace(made: Callable[[bytes], bytes]) -> Edit:
    """Return a change that makes another body of the one that is there."""

    def edit(liar: Liar, tree: int, key: ItemKey) -> ItemKey:
        liar.replace(tree, key, made(liar.body(tree, key)))
        return key

    return edit


# Choices.


def number(code: str, at: int, value: int) -> Callable[[ItemKey, bytes], bool]:
    """Return a choice of items by a number in their body."""

    def is_so(_: ItemKey, body: bytes) -> bool:
        size = struct.calcsize(code)
        return len(body) >= at + size and struct.unpack_from(code, body, at) == (value,)

    return is_so


# What is found.


def tells(found: Iterable[Finding], lie: Lie, key: ItemKey) -> bool:
    """Return whether the check says of an item what a lie expects."""
    name = str(Key(*key))
    return any(
        finding.key == name and finding.kind == lie.kind and lie.why in finding.message
        for finding in found
    )


def assert_told(sound: Path, folder: Path, lie: Lie) -> None:
    """Check that a lie is found, and that the kernel refuses it if that is expected."""
    image = folder / "image"
    copy_image(sound, image)
    key = lie.tell(image)
    found = findings(image)
    assert tells(found, lie, key), "\n".join(f"{each.kind}: {each}" for each in found)
    if lie.refused:
        assert is_refused(image, folder / "mounted")


def is_refused(image: Path, folder: Path) -> bool:
    """Return whether the kernel does not mount an image, or cannot read all of its files."""
    folder.mkdir()
    try:
        support.run("mount", "-o", "loop,ro", image, folder)
    except support.CommandError:
        return True
    try:
        _read_all(folder)
    except OSError:
        return True
    finally:
        support.run("umount", folder)
    return False


def _read_all(folder: Path) -> None:
    """Read names, inodes, attributes and contents of all files."""

    def fail(error: OSError) -> None:
        raise error

    for where, _, files in os.walk(folder, onerror=fail):
        for name in files:
            path = Path(where, name)
            path.lstat()
            os.listxattr(path, follow_symlinks=False)
            if path.is_symlink():
                path.readlink()
            elif path.is_file():
                path.read_bytes()
