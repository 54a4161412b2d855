"""Dumps by btrfs-image: both versions, and whatever can be wrong with the file."""

from __future__ import annotations

import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from btrfs import FileSystem
from btrfs.errors import CorruptError
from btrfs.source.dump import inflater
from btrfs.source.dump.metadump import Metadump
from tests import support
from tests.library.reading import Items, all_batches, all_items
from tests.support.programs import SAMPLE

V0, V1 = 0xBD5C25E27295668B, 0x31765F506D55445F
BLOCK = 1024
HEADER, ITEM = struct.Struct("<QQIB"), struct.Struct("<QI")
SUPERBLOCK = 65536
MIB = 1 << 20


class Piece(NamedTuple):
    """Some metadata by its address, as it is in the file and as it means."""

    vaddr: int
    stored: bytes
    compressed: bool

    @property
    def content(self) -> bytes:
        """The metadata itself."""
        return zlib.decompress(self.stored) if self.compressed else self.stored


def pieces_of(dump: Path) -> list[Piece]:
    """Return what is in a sound dump."""
    return list(_entries(dump.read_bytes()))


def _entries(content: bytes) -> Iterator[Piece]:
    position = 0
    while position < len(content):
        _, _, nritems, compressed = HEADER.unpack_from(content, position)
        index, position = position + HEADER.size, position + BLOCK
        for number in range(nritems):
            vaddr, size = ITEM.unpack_from(content, index + number * ITEM.size)
            yield Piece(vaddr, content[position : position + size], bool(compressed))
            position += size
        position += -position % BLOCK


def written(
    dump: Path, pieces: Iterable[Piece], *, magic: int = V0, per_cluster: int = 83
) -> list[int]:
    """Write a dump; return where its clusters begin."""
    left = list(pieces)
    content = b""
    places = []
    while left:
        compressed = left[0].compressed
        cluster = [piece for piece in left[:per_cluster] if piece.compressed == compressed]
        left = left[len(cluster) :]
        places.append(len(content))
        block = HEADER.pack(magic, len(content), len(cluster), compressed)
        block += b"".join(ITEM.pack(piece.vaddr, len(piece.stored)) for piece in cluster)
        body = block.ljust(BLOCK, b"\0") + b"".join(piece.stored for piece in cluster)
        content += body + bytes(-len(body) % BLOCK)
    dump.write_bytes(content)
    return places


def plain(vaddr: int, content: bytes) -> Piece:
    return Piece(vaddr, content, False)


def packed(vaddr: int, content: bytes, level: int = 1) -> Piece:
    return Piece(vaddr, zlib.compress(content, level), True)


Form = Callable[[int, bytes], Piece]


@pytest.fixture(scope="module")
def sample() -> list[Piece]:
    """The pieces of a small filesystem."""
    return pieces_of(support.DATA / "block-group-tree.btrfs-image")


def remade(pieces: Iterable[Piece], form: Form) -> list[Piece]:
    """Return the pieces compressed or not, as wanted."""
    return [form(piece.vaddr, piece.content) for piece in pieces]


def together(pieces: Iterable[Piece]) -> tuple[int, bytes]:
    """Return all pieces as one, with zeros between them, and where it begins."""
    contents = {piece.vaddr: piece.content for piece in pieces}
    first = min(contents)
    whole = bytearray(max(vaddr + len(content) for vaddr, content in contents.items()) - first)
    for vaddr, content in contents.items():
        whole[vaddr - first : vaddr - first + len(content)] = content
    return first, bytes(whole)


def whole(dump: Path) -> dict[int, Items]:
    """Return all items, which must be the same in all ways of reading."""
    with FileSystem(dump) as fs:
        items = all_items(fs)
        assert all_batches(fs) == items
        assert (fs.damage, fs.lost, fs.notes) == ([], [], [])
    return items


def remains(dump: Path) -> tuple[dict[int, Items], FileSystem]:
    """Return what is left of all items, and the filesystem, which is closed."""
    with FileSystem(dump, on_error="skip") as fs:
        items = all_items(fs)
        assert all_batches(fs) == items
    return items, fs


def assert_part_of(items: dict[int, Items], all_of_them: dict[int, Items]) -> None:
    for tree, found in items.items():
        assert set(found) <= set(all_of_them[tree])
        assert found == sorted(found, key=all_of_them[tree].index)


# Sound ones.


@pytest.mark.parametrize("form", [plain, packed])
@pytest.mark.parametrize("magic", [V0, V1])
@pytest.mark.parametrize("per_cluster", [83, 3])
def test_versions_and_forms(
    tmp_path: Path, sample: list[Piece], form: Form, magic: int, per_cluster: int
) -> None:
    dump = tmp_path / "dump"
    written(dump, sample)
    items = whole(dump)
    written(dump, remade(sample, form), magic=magic, per_cluster=per_cluster)
    assert whole(dump) == items


def test_both_forms_in_one_dump(tmp_path: Path, sample: list[Piece]) -> None:
    dump = tmp_path / "dump"
    written(dump, sample)
    items = whole(dump)
    written(dump, [*remade(sample[::2], plain), *remade(sample[1::2], packed)])
    assert whole(dump) == items


@pytest.mark.parametrize("form", [plain, packed])
def test_pieces_of_256_mib(tmp_path: Path, form: Form) -> None:
    """Little of them is in memory at a time, and what is behind is reached in a short time."""
    pieces = pieces_of(SAMPLE)
    first, content = together(pieces)
    size = 256 * MIB
    assert len(content) > size
    dump = tmp_path / "dump"
    written(dump, [form(first, content[:size]), form(first + size, content[size:])], magic=V1)
    del content
    tracemalloc.start()
    try:
        with closing(Metadump(str(dump))) as store:
            found = read_all(store, pieces)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == sum(len(piece.content) for piece in pieces)
    assert peak < 48 * MIB


def read_all(store: Metadump, pieces: list[Piece]) -> int:
    """Read all pieces in any order, and compare them; return how many bytes that were."""
    total = 0
    for piece in random.Random(1).sample(pieces, len(pieces)):
        content = piece.content
        (copy,) = store.read_copies(piece.vaddr, len(content))
        assert copy.data == content
        total += len(content)
    return total


def test_any_place_of_a_compressed_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: list[Piece]
) -> None:
    """With windows so small that there are far more of them than can be remembered."""
    monkeypatch.setattr(inflater, "_WINDOW_SIZE", 4096)
    monkeypatch.setattr(inflater, "_CACHED_BYTES", 5 * 4096)
    monkeypatch.setattr(inflater, "_MAX_CHECKPOINTS", 8)
    chance = random.Random(2)
    contents = [chance.randbytes(3 * MIB + 77), chance.randbytes(777) * 3000, b"x" * MIB]
    dump = tmp_path / "dump"
    places = [vaddr * MIB for vaddr in (100, 200, 300)]
    large = [packed(*piece) for piece in zip(places, contents, strict=True)]
    written(dump, [*sample, *large], magic=V1)
    with closing(Metadump(str(dump))) as store:
        for _ in range(300):
            number = chance.randrange(3)
            at = chance.randrange(len(contents[number]))
            length = min(chance.choice((4096, 16384)), len(contents[number]) - at)
            vaddrs = np.array([places[number] + at], np.int64)
            buffer, good = store.read_many(vaddrs, length)
            assert good.all()
            assert buffer.tobytes() == contents[number][at : at + length]
            assert len(store._inflater._checkpoints) <= 8
            assert store._inflater._cached_bytes <= 5 * 4096


# Cut off, or damaged.


@pytest.mark.parametrize("form", [plain, packed])
def test_every_length_of_a_truncated_dump(tmp_path: Path, sample: list[Piece], form: Form) -> None:
    dump = tmp_path / "dump"
    pieces = remade(sample, form)
    # The root tree, without which nothing is found, lies behind the others.
    clusters = written(dump, [pieces[0], *pieces[:0:-1]], per_cluster=5)
    items = whole(dump)
    content = dump.read_bytes()
    has_superblock = BLOCK + len(pieces[0].stored)
    seen = 0
    for size in (*range(8, len(content), len(content) // 25), clusters[-1], len(content) - 1):
        dump.write_bytes(content[:size])
        if size < has_superblock:
            with pytest.raises(CorruptError, match="the dump is good up to byte"):
                FileSystem(dump)
            continue
        left, fs = remains(dump)
        assert_part_of(left, items)
        assert (left == items) == (fs.lost == [])
        if size in clusters:
            # Nothing tells that more clusters should follow.
            assert (fs.notes, bool(fs.lost)) == ([], True)
            continue
        (note,) = fs.notes
        found = int(note.removeprefix("the dump is good up to byte ").split()[0])
        assert max(place for place in clusters if place <= size) <= found <= size
        assert f" of {size} (" in note
        if fs.lost:
            with pytest.raises(CorruptError), FileSystem(dump) as strict:
                all_items(strict)
        seen += sum(map(len, left.values()))
    assert seen > sum(map(len, items.values())), "there is something to be read of many"


@pytest.mark.parametrize(
    ("at", "code", "value", "what"),
    [
        (0, "<Q", V1, "magic: expected"),
        (8, "<Q", 0, "bytenr: expected"),
        (8, "<Q", 1 << 63, "bytenr: expected"),
        (16, "<I", 84, "nritems: expected at most 83, found 84"),
        (16, "<I", 0xFFFFFFFF, "nritems: expected at most 83"),
        (20, "<B", 2, "compress: expected 0 or 1, found 2"),
    ],
)
def test_wrong_cluster(
    tmp_path: Path, sample: list[Piece], at: int, code: str, value: int, what: str
) -> None:
    """What is before it is read, as if the dump ended there."""
    dump = tmp_path / "dump"
    *_, last = written(dump, sample, per_cluster=4)
    content = bytearray(dump.read_bytes())
    dump.write_bytes(content[:last])
    before, _ = remains(dump)
    assert any(before.values())
    struct.pack_into(code, content, last + at, value)
    dump.write_bytes(content)
    left, fs = remains(dump)
    assert left == before
    assert fs.lost
    (note,) = fs.notes
    assert note.startswith(f"the dump is good up to byte {last} of {len(content)} (cluster of the")
    assert what in note
    with (
        pytest.raises(CorruptError, match="expected to be in the dump") as caught,
        FileSystem(dump) as strict,
    ):
        all_items(strict)
    assert caught.value.hint == note


@pytest.mark.parametrize(
    ("at", "code", "value"),
    [(8, "<Q", 1024), (16, "<I", 99), (20, "<B", 2), (21, "<Q", 1 << 40), (1024, "<Q", 0)],
    ids=["bytenr", "nritems", "compress", "address", "compressed bytes"],
)
def test_no_superblock_in_the_good_part(
    tmp_path: Path, sample: list[Piece], at: int, code: str, value: int
) -> None:
    dump = tmp_path / "dump"
    written(dump, sample)
    content = bytearray(dump.read_bytes())
    struct.pack_into(code, content, at, value)
    dump.write_bytes(content)
    with pytest.raises(CorruptError, match="expected a superblock, found") as caught:
        FileSystem(dump)
    assert str(dump) in str(caught.value)
    if at < 21:
        assert f"good up to byte 0 of {len(content)}" in str(caught.value)


def test_size_of_a_piece_that_leads_behind_the_end(tmp_path: Path, sample: list[Piece]) -> None:
    dump = tmp_path / "dump"
    written(dump, sample)
    items = whole(dump)
    content = bytearray(dump.read_bytes())
    struct.pack_into("<I", content, 21 + ITEM.size + 8, 0xFFFFFFFF)
    dump.write_bytes(content)
    left, fs = remains(dump)
    assert_part_of(left, items)
    assert fs.lost
    assert "expected 4294967295 bytes" in str(fs.notes)


@pytest.mark.parametrize("level", [0, 9])
def test_damage_in_compressed_bytes(tmp_path: Path, sample: list[Piece], level: int) -> None:
    """Only what is behind it in the same piece is lost."""
    dump = tmp_path / "dump"
    written(dump, sample)
    items = whole(dump)
    victim = max(sample[1:], key=lambda piece: len(piece.content))
    assert len(victim.content) > 65536
    stored = bytearray(zlib.compress(victim.content, level))
    # With level 0 this is the head of the second block of deflate.
    at = 65535 + 7 if level == 0 else 4
    stored[at : at + 9] = b"\xff" * 9
    written(dump, [victim._replace(stored=bytes(stored)) if p is victim else p for p in sample])
    left, fs = remains(dump)
    assert_part_of(left, items)
    assert fs.lost
    assert fs.notes == []
    assert {damage.what for damage in fs.damage} == {f"dump, metadata at {victim.vaddr}"}
    assert all(str(damage.found).startswith("Error -3 ") for damage in fs.damage)
    lost = {damage.vaddr for damage in fs.damage if damage.vaddr is not None}
    first_lost = victim.vaddr if level else victim.vaddr + 49152
    assert lost <= set(range(first_lost, victim.vaddr + len(victim.content)))


def test_compressed_bytes_that_stop(tmp_path: Path, sample: list[Piece]) -> None:
    dump = tmp_path / "dump"
    last = sample[-1]
    written(dump, [*sample[:-1], last._replace(stored=last.stored[:-9])])
    with closing(Metadump(str(dump))) as store:
        (copy,) = store.read_copies(last.vaddr, len(last.content))
        assert isinstance(copy.data, CorruptError)
        assert "only its beginning" in str(copy.data)


def test_block_that_is_not_there(tmp_path: Path, sample: list[Piece]) -> None:
    dump = tmp_path / "dump"
    written(dump, sample[:-1])
    with closing(Metadump(str(dump))) as store:
        missing = sample[-1].vaddr
        for vaddr in (0, missing, missing + 4096, (1 << 64) - 1):
            with pytest.raises(
                CorruptError, match=f"^tree block at {vaddr}: expected to be in the dump"
            ) as caught:
                list(store.read_copies(vaddr, 16384))
            assert caught.value.hint
        _, good = store.read_many(np.array([missing, 0], np.int64), 16384)
        assert not good.any()


# Made to do harm.


@pytest.mark.parametrize("form", [plain, packed])
def test_pieces_that_overlap(tmp_path: Path, sample: list[Piece], form: Form) -> None:
    """If one of them is wrong, another is taken."""
    dump = tmp_path / "dump"
    written(dump, sample)
    items = whole(dump)
    wrong = [form(piece.vaddr, bytes(4096)) for piece in sample]
    inner = [form(piece.vaddr + 4096, b"?" * 4096) for piece in sample[1:]]
    for pieces in ([*sample, *wrong], [*wrong, *sample], [*sample, *inner]):
        written(dump, pieces)
        left, fs = remains(dump)
        assert left == items
        assert all(damage.recovered for damage in fs.damage)


def test_pieces_of_no_bytes(tmp_path: Path, sample: list[Piece]) -> None:
    dump = tmp_path / "dump"
    written(dump, sample)
    items = whole(dump)
    nothing = [Piece(piece.vaddr + n, b"", False) for piece in sample for n in (0, 1, 4096)]
    written(dump, [*nothing, *sample, *nothing], per_cluster=7)
    assert whole(dump) == items


def test_block_in_many_entries(tmp_path: Path, sample: list[Piece]) -> None:
    """Of sectors it is put together; of single bytes it is not, and that is found out soon."""
    dump = tmp_path / "dump"
    written(dump, sample)
    items = whole(dump)
    written(dump, [p for piece in sample for p in split(piece, 4096)])
    assert whole(dump) == items
    last = sample[-1]
    block = plain(last.vaddr, last.content[:16384])
    written(dump, [sample[0], *split(block, 1)])
    left, fs = remains(dump)
    assert not any(left.values())
    assert fs.lost


def split(piece: Piece, size: int) -> Iterator[Piece]:
    content = piece.content
    for at in range(0, len(content), size):
        yield plain(piece.vaddr + at, content[at : at + size])


@pytest.mark.parametrize("magic", [V0, V1])
def test_zlib_bomb(tmp_path: Path, sample: list[Piece], magic: int) -> None:
    """Of what would be 1 GiB, a few MiB are held, and nothing behind the most that there can be."""
    compressor = zlib.compressobj(9)
    start = compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
    # Nothing in it refers to what is before it, so it can be repeated.
    more = compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
    stored = start + 1023 * more
    dump = tmp_path / "dump"
    bomb = Piece(1 << 40, stored, True)
    written(dump, [*sample, bomb], magic=magic)
    most = (256 << 10) if magic == V0 else (256 << 20)
    tracemalloc.start()
    try:
        with closing(Metadump(str(dump))) as store:
            for offset in (most - 16384, 0, most // 2):
                (copy,) = store.read_copies(bomb.vaddr + offset, 16384)
                assert copy.data == bytes(16384)
            with pytest.raises(CorruptError, match="expected to be in the dump"):
                list(store.read_copies(bomb.vaddr + most, 16384))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * MIB


def test_huge_counts(tmp_path: Path, sample: list[Piece]) -> None:
    """As many pieces as a file can have, of a byte each."""
    dump = tmp_path / "dump"
    tiny = [plain((1 << 50) - number, b"x") for number in range(50_000)]
    written(dump, [*sample, *tiny])
    tracemalloc.start()
    try:
        with closing(Metadump(str(dump))) as store:
            assert len(store._entries) == len(sample) + len(tiny)
            (copy,) = store.read_copies(sample[-1].vaddr, 16384)
            assert copy.data == sample[-1].content[:16384]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB
