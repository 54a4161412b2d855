"""Lies about extents and their back references are found, each once.

The last field of a lie says whether `btrfs check` of btrfs-progs 6.2 reports an error, too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from btrfs.ondisk.constants import (
    BLOCK_GROUP_ITEM_KEY,
    EXTENT_DATA_REF_KEY,
    EXTENT_ITEM_KEY,
    EXTENT_OWNER_REF_KEY,
    EXTENT_TREE_OBJECTID,
    METADATA_ITEM_KEY,
    SHARED_BLOCK_REF_KEY,
    SHARED_DATA_REF_KEY,
    TREE_BLOCK_REF_KEY,
)
from tests import support
from tests.lab.damage import Anatomy, copy_image
from tests.lab.lies import ItemKey, Liar
from tests.library.address_lies import (
    Lie,
    assert_found,
    data_extent,
    data_ref,
    findings,
    inline_types,
    keyed_extent,
    make_shared,
    only,
)

TREE = EXTENT_TREE_OBJECTID

REFS, GENERATION, FLAGS, INLINE = 0, 8, 16, 24
"""Where fields are in the body of an extent."""

ROOT, INUM, OFFSET, COUNT = 0, 8, 16, 24
"""Where fields are in a back reference of a file."""

FILE, TWO_FILES = (EXTENT_DATA_REF_KEY,), (EXTENT_DATA_REF_KEY,) * 2


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shared(tmp_path_factory.mktemp("extents"))


@pytest.fixture(scope="module")
def fat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a filesystem whose extents of tree blocks have keys with lengths."""
    return make_shared(tmp_path_factory.mktemp("fat"), features=("^skinny-metadata",))


def put(types: tuple[int, ...], code: str, at: int, value: int) -> Callable[[Liar], None]:
    """Write a number into the item of a data extent with references of these types."""
    return lambda liar: liar.put(TREE, data_extent(liar, types), code, at, value)


def put_block(code: str, at: int, value: int) -> Callable[[Liar], None]:
    """Write a number into the item of a tree block's extent."""
    return lambda liar: liar.put(TREE, a_block(liar), code, at, value)


def put_keyed(code: str, at: int, value: int) -> Callable[[Liar], None]:
    """Write a number into a back reference that is an item of its own."""
    return lambda liar: liar.put(TREE, keyed_extent(liar), code, at, value)


def a_block(liar: Liar) -> ItemKey:
    """Return the key of the extent of a tree block with one reference of a tree."""
    for key, body in liar.items(TREE):
        if key.type == METADATA_ITEM_KEY and inline_types(body) == [TREE_BLOCK_REF_KEY]:
            return key
    raise AssertionError("no such tree block")


def share(liar: Liar) -> None:
    """Give a leaf of the extent tree the flag of blocks whose references name them."""
    vaddr = liar.blocks(TREE)[-1].vaddr
    (key,) = liar.keys(TREE, METADATA_ITEM_KEY, vaddr)
    liar.put(TREE, key, "<Q", FLAGS, 2 | 1 << 8)


def append(types: tuple[int, ...], more: bytes, refs: int) -> Callable[[Liar], None]:
    """Append bytes to the item of a data extent, and count so many references more."""

    def tell(liar: Liar) -> None:
        key = data_extent(liar, types)
        liar.change(TREE, key, lambda body: body.extend(more))
        liar.add(TREE, key, "<Q", REFS, refs)

    return tell


def swap(liar: Liar) -> None:
    """Swap two references of the same extent."""
    key = data_extent(liar, TWO_FILES)
    body = liar.body(TREE, key)
    liar.replace(TREE, key, body[:INLINE] + body[INLINE + 29 :] + body[INLINE : INLINE + 29])


def split(liar: Liar) -> None:
    """Count two uses of the same place as two references."""
    key = data_extent(liar, FILE)
    body = liar.body(TREE, key)
    liar.replace(TREE, key, body + body[INLINE:])
    liar.put(TREE, key, "<Q", REFS, 2)


def give_owner(liar: Liar) -> None:
    key = data_extent(liar, FILE)
    body = liar.body(TREE, key)
    owner = struct.pack("<BQ", EXTENT_OWNER_REF_KEY, 256)
    liar.replace(TREE, key, body[:INLINE] + owner + body[INLINE:])


def move_keyed(distance: int) -> Callable[[Liar], None]:
    def tell(liar: Liar) -> None:
        key = keyed_extent(liar)
        liar.rekey(TREE, key, key._replace(offset=key.offset + distance))

    return tell


def last_of_many(liar: Liar) -> ItemKey:
    return liar.keys(TREE, EXTENT_DATA_REF_KEY)[-1]


def collide(liar: Liar) -> None:
    """Move a back reference as far as one whose hash another one has."""
    key = last_of_many(liar)
    liar.rekey(TREE, key, key._replace(offset=key.offset + 1))


def forge(key_type: int, offset: int, body: bytes) -> Callable[[Liar], None]:
    """Insert a back reference of another type behind a data extent."""

    def tell(liar: Liar) -> None:
        vaddr = data_extent(liar, FILE).objectid
        liar.insert(TREE, ItemKey(vaddr, key_type, offset), body)

    return tell


def shared(liar: Liar) -> ItemKey:
    return only(liar, TREE, SHARED_DATA_REF_KEY)


def move_shared(liar: Liar) -> None:
    key = shared(liar)
    liar.rekey(TREE, key, key._replace(offset=key.offset + 512))


def remove_extent(liar: Liar) -> None:
    liar.remove(TREE, data_extent(liar, FILE))


def remove_counts(liar: Liar) -> None:
    """Remove one of many back references, and do not count it."""
    liar.remove(TREE, last_of_many(liar))
    extent = ItemKey(shared(liar).objectid, EXTENT_ITEM_KEY, 64 << 10)
    liar.add(TREE, extent, "<Q", REFS, -1)


DAMAGED = ("item-damaged",)

LIES = {
    "no references": Lie(
        put(FILE, "<Q", REFS, 0), ("item-damaged", "extent-references"), "without references"
    ),
    "most references": Lie(put(FILE, "<Q", REFS, (1 << 64) - 1), ("extent-references",)),
    "generation": Lie(put(FILE, "<Q", GENERATION, 1 << 40), DAMAGED, "has not been yet"),
    "next generation": Lie(
        lambda liar: liar.put(
            TREE, data_extent(liar, FILE), "<Q", GENERATION, generation(liar) + 1
        ),
        DAMAGED,
        "has not been yet",
        seen=False,
    ),
    "no flags": Lie(
        put(FILE, "<Q", FLAGS, 0), DAMAGED, "neither data nor a tree block", seen=False
    ),
    "both flags": Lie(put(FILE, "<Q", FLAGS, 3), DAMAGED, "neither data nor a tree block"),
    "other flags": Lie(
        put(FILE, "<Q", FLAGS, 1 | 1 << 5), DAMAGED, "bits that are not known", seen=False
    ),
    "data with a flag of blocks": Lie(
        put(FILE, "<Q", FLAGS, 0x101), DAMAGED, "FULL_BACKREF", seen=False
    ),
    "block as data": Lie(put_block("<Q", FLAGS, 1), DAMAGED, "data cannot have", seen=False),
    "never shared": Lie(
        share,
        ("block-shared",),
        "of a tree that is no subvolume",
    ),
    "level of eight": Lie(
        lambda liar: liar.rekey(TREE, a_block(liar), a_block(liar)._replace(offset=8)),
        ("item-damaged", "block-differs"),
        "level is too high",
    ),
    "short item": Lie(
        lambda liar: liar.replace(TREE, data_extent(liar, FILE), bytes(20)), DAMAGED, "too short"
    ),
    "part of a reference": Lie(append(FILE, b"\xb2abc", 0), DAMAGED, "not whole"),
    "padding": Lie(append(FILE, b"\0", 0), DAMAGED, "not whole"),
    "unknown reference": Lie(put(FILE, "<B", INLINE, 185), DAMAGED, "unknown kind"),
    "reference of a block": Lie(
        append(FILE, struct.pack("<BQ", TREE_BLOCK_REF_KEY, 5), 1),
        ("item-damaged", "backref-alone"),
        "data has a reference for tree blocks",
    ),
    "swapped references": Lie(swap, DAMAGED, "not in order", seen=False),
    "types out of order": Lie(
        append(FILE, struct.pack("<BQ", SHARED_BLOCK_REF_KEY, 4096 << 9), 1),
        ("item-damaged", "backref-alone"),
        "data has a reference for tree blocks",
    ),
    "same reference twice": Lie(
        split, ("item-damaged", "backref-count"), "the same reference twice"
    ),
    "owner": Lie(give_owner, DAMAGED, "without simple quotas"),
    "reference counted as none": Lie(
        put(FILE, "<I", INLINE + 1 + COUNT, 0),
        ("item-damaged", "extent-references", "backref-missing"),
        "counted 0 times",
    ),
    "tree without files": Lie(
        put(FILE, "<Q", INLINE + 1 + ROOT, 2),
        ("item-damaged", "backref-missing", "backref-alone"),
        "tree without files",
    ),
    "inode number": Lie(
        put(FILE, "<Q", INLINE + 1 + INUM, 2),
        ("item-damaged", "backref-missing", "backref-alone"),
        "a reference of no file",
    ),
    "offset": Lie(
        put(FILE, "<Q", INLINE + 1 + OFFSET, 5),
        ("item-damaged", "backref-missing", "backref-alone"),
        "is not a multiple of 4096",
    ),
    "negative offset": Lie(
        put(FILE, "<Q", INLINE + 1 + OFFSET, (1 << 64) - 4096),
        ("backref-missing", "backref-alone"),
    ),
    "no tree": Lie(
        put_block("<Q", INLINE + 1, 0),
        ("item-damaged", "backref-missing", "backref-alone"),
        "a reference of no tree",
    ),
    "parent": Lie(
        lambda liar: liar.replace(
            TREE, a_block(liar), forged_parent(liar.body(TREE, a_block(liar)))
        ),
        ("item-damaged", "backref-missing", "backref-alone"),
        "that no block can have",
    ),
    "far from its hash": Lie(move_keyed(1000), DAMAGED, "not stored under its hash", seen=False),
    "before its hash": Lie(move_keyed(-1), DAMAGED, "not stored under its hash", seen=False),
    "long reference": Lie(
        lambda liar: liar.change(TREE, keyed_extent(liar), lambda body: body.extend(b"12")),
        DAMAGED,
        "its size is wrong",
        seen=False,
    ),
    "counted as none": Lie(
        put_keyed("<I", COUNT, 0),
        ("item-damaged", "extent-references", "backref-missing"),
        "counted 0 times",
    ),
    "shared reference elsewhere": Lie(
        move_shared, ("item-damaged", "backref-missing", "backref-alone"), "no block can have"
    ),
    "shared reference counted as none": Lie(
        lambda liar: liar.put(TREE, shared(liar), "<I", 0, 0),
        ("item-damaged", "extent-references", "backref-missing"),
        "counted 0 times",
    ),
    "keyed reference of a block": Lie(forge(TREE_BLOCK_REF_KEY, 5, b""), ("reference-alone",)),
    "keyed reference to nothing": Lie(
        lambda liar: liar.insert(
            TREE, ItemKey(4096, EXTENT_DATA_REF_KEY, 1 << 62), data_ref(5, 257, 0, 1)
        ),
        ("reference-alone", "item-damaged"),
        "extent at 4096",
    ),
    "no extent": Lie(
        remove_extent,
        ("extent-missing", "block-group-used", "free-space-differs", "checksum-alone"),
    ),
    "one of many": Lie(remove_counts, ("backref-missing",)),
    "block group in the wrong tree": Lie(
        lambda liar: liar.insert(TREE, ItemKey(1 << 40, BLOCK_GROUP_ITEM_KEY, 1 << 20), bytes(24)),
        ("item-damaged", "block-group-alone"),
        "chunk_objectid is wrong",
    ),
}


def generation(liar: Liar) -> int:
    """Return the generation of the filesystem: that of the extent tree here, too."""
    return max(block.generation for block in liar.blocks(TREE))


def forged_parent(body: bytes) -> bytes:
    return body[:INLINE] + struct.pack("<BQ", SHARED_BLOCK_REF_KEY, 12345)


@pytest.mark.parametrize("name", LIES)
def test_lie(sound: Path, tmp_path: Path, name: str) -> None:
    assert_found(sound, tmp_path, LIES[name])


def test_reference_with_the_hash_of_another(sound: Path, tmp_path: Path) -> None:
    """It is stored behind the other one, which can be gone."""
    copy_image(sound, tmp_path / "image")
    collide(Liar([tmp_path / "image"]))
    assert findings(tmp_path / "image") == []


def test_nothing_is_wrong(sound: Path, fat: Path) -> None:
    assert findings(sound) == []
    assert findings(fat) == []


# Extents of tree blocks whose keys have a length.


def fat_block(liar: Liar) -> ItemKey:
    for key, body in liar.items(TREE):
        if key.type == EXTENT_ITEM_KEY and body[FLAGS] == 2 and body[REFS] == 1:
            return key
    raise AssertionError("no such tree block")


LEVEL = INLINE + 17


def skinny(liar: Liar) -> None:
    """Store the extent of a tree block as it is with another feature."""
    key = fat_block(liar)
    body = liar.body(TREE, key)
    liar.remove(TREE, key)
    new = ItemKey(key.objectid, METADATA_ITEM_KEY, body[LEVEL])
    liar.insert(TREE, new, body[:INLINE] + body[LEVEL + 1 :])


FAT_LIES = {
    "level": Lie(
        lambda liar: liar.put(TREE, fat_block(liar), "<B", LEVEL, 5), ("block-differs",), seen=False
    ),
    "length": Lie(
        lambda liar: liar.rekey(TREE, fat_block(liar), fat_block(liar)._replace(offset=8192)),
        (
            *("item-damaged", "block-group-used", "free-space-differs"),
            *("backref-missing", "backref-alone"),
        ),
        "not that of a tree block",
    ),
    "without its level": Lie(
        lambda liar: liar.change(
            TREE, fat_block(liar), lambda body: body.__delitem__(slice(30, None))
        ),
        ("item-damaged",),
        "not whole",
    ),
    "a skinny one": Lie(skinny, ("item-damaged",), "without that feature", seen=False),
}


@pytest.mark.parametrize("name", FAT_LIES)
def test_fat_lie(fat: Path, tmp_path: Path, name: str) -> None:
    assert_found(fat, tmp_path, FAT_LIES[name])


# Owners, with simple quotas.


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.stored_image("simple-quota.img", tmp_path_factory.mktemp("owned"))


OWNER = 9
"""Bytes of the name of an owner."""


def owned_extent(liar: Liar) -> ItemKey:
    return data_extent(liar, (EXTENT_OWNER_REF_KEY, EXTENT_DATA_REF_KEY))


def put_owner_last(liar: Liar) -> None:
    key = owned_extent(liar)
    body = liar.body(TREE, key)
    middle = INLINE + OWNER
    liar.replace(TREE, key, body[:INLINE] + body[middle:] + body[INLINE:middle])


def repeat_owner(liar: Liar) -> None:
    key = owned_extent(liar)
    body = liar.body(TREE, key)
    liar.replace(TREE, key, body[: INLINE + OWNER] + body[INLINE:])


def own_block(liar: Liar) -> None:
    key = a_block(liar)
    body = liar.body(TREE, key)
    owner = struct.pack("<BQ", EXTENT_OWNER_REF_KEY, 5)
    liar.replace(TREE, key, body[:INLINE] + owner + body[INLINE:])


@pytest.mark.parametrize(
    ("tell", "why"),
    [
        (put_owner_last, "its owner does not come first"),
        (repeat_owner, "its owner does not come first"),
        (own_block, "a tree block that names its owner"),
    ],
)
def test_owner(owned: Path, tmp_path: Path, tell: Callable[[Liar], None], why: str) -> None:
    """btrfs-progs 6.2 do not know simple quotas."""
    copy_image(owned, tmp_path / "image")
    tell(Liar([tmp_path / "image"]))
    assert [(one.kind, why in one.message) for one in findings(tmp_path / "image")] == [
        ("item-damaged", True)
    ]


# What cannot be read, and where batches end.


def test_nothing_follows_from_what_cannot_be_read(sound: Path, tmp_path: Path) -> None:
    """Not even where an extent is in one leaf, and its back references are in others."""
    anatomy = Anatomy([sound])
    for number, leaf in enumerate(anatomy.leaves(TREE)):
        image = tmp_path / "unreadable.img"
        copy_image(sound, image)
        with image.open("r+b") as file:
            for place in anatomy.copies(leaf):
                file.seek(place.paddr + 2000)
                file.write(b"unreadable")
        kinds = {finding.kind for finding in findings(image)}
        assert kinds == {"block-damaged", "keys-lost"}, number


@pytest.mark.parametrize("leaves", [1, 2, 3, 5])
def test_batches_make_no_difference(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: int
) -> None:
    image = tmp_path / "image"
    copy_image(sound, image)
    liar = Liar([image])
    for name in ("generation", "same reference twice", "shared reference counted as none"):
        LIES[name].tell(liar)
    for key in liar.keys(TREE, EXTENT_DATA_REF_KEY)[::7]:
        liar.put(TREE, key, "<I", COUNT, 5)
    expected = findings(image)
    assert len(expected) > 40
    monkeypatch.setattr("btrfs.source.disk.bulk.BATCH_BYTES", leaves * 4096)
    assert sorted(map(str, findings(image))) == sorted(map(str, expected))
    assert findings(sound) == []
