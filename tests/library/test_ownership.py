"""Who owns the space, beside quota groups that the kernel has counted, and real deletions."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from btrfs import FileSystem
from btrfs.ctree import QUOTA_TREE_OBJECTID, QgroupInfo
from btrfs.errors import BtrfsError
from btrfs.ownership import Ownership, scan
from btrfs.ownership.graph import AskedLeaves, Graph
from btrfs.ownership.owners import Kind, owners
from btrfs.ownership.root_sets import RootSets
from btrfs.source.disk.bulk import Leaves
from tests import support
from tests.lab.sharing import change, share_space
from tests.support.removal import interrupt

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "nodesize 4096": {"nodesize": 4096},
    "nodesize 65536": {"nodesize": 65536},
    "mixed": {"mixed": True, "size": "512M"},
    "raid1 on unequal devices": {"devices": 3, "data": "raid1", "metadata": "raid1c3"},
    "free space cache": {"features": ["^free-space-tree"]},
    "old features": {"features": ["^free-space-tree", "^skinny-metadata", "^no-holes"]},
    "blake2, raid5": {"devices": 3, "data": "raid5", "metadata": "raid1", "csum": "blake2"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_as_quota_groups_count(tmp_path: Path, kind: str) -> None:
    with support.filesystem(tmp_path, **KINDS[kind]) as fs:
        share_space(fs.mountpoint)
        if kind == "raid1 on unequal devices":
            support.run("btrfs", "filesystem", "resize", "2:700M", fs.mountpoint)
            support.run("btrfs", "balance", "start", "--full-balance", fs.mountpoint)
        rescan(fs.mountpoint)
        fs.unmount()
        with FileSystem(fs.images, source="unmounted") as opened:
            assert_as_quota_groups(opened, scan(opened))


def test_block_group_tree(tmp_path: Path) -> None:
    image = support.stored_image("block-group-tree.img", tmp_path)
    with support.mounted_images([image], tmp_path / "mnt") as fs:
        share_space(fs.mountpoint, files=100)
        rescan(fs.mountpoint)
        fs.unmount()
        with FileSystem(image) as opened:
            assert_as_quota_groups(opened, scan(opened))


def test_in_little_memory(tmp_path: Path) -> None:
    """Rows in files, worked on in parts, give the same as rows in memory."""
    with support.filesystem(tmp_path) as fs:
        share_space(fs.mountpoint)
        fs.unmount()
        with FileSystem(fs.images) as opened:
            whole, in_parts = scan(opened), scan(opened, memory=50_000)
            for one, other in zip(whole.subvolumes(), in_parts.subvolumes(), strict=True):
                assert one.referenced == other.referenced
                assert one.exclusive == other.exclusive
            assert in_parts.unexplained == 0
            assert len(whole.tables.references) == len(in_parts.tables.references) > 200
            assert rows(whole) == rows(in_parts)
            assert (whole.tables.extents.unreachable == in_parts.tables.extents.unreachable).all()


def rows(owned: Ownership) -> list[tuple[int, ...]]:
    """Return all references, in an order of their own."""
    found = owned.tables.references
    columns = (found.extent, found.leaf, found.inum, found.position, found.offset, found.num_bytes)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def rescan(root: Path) -> None:
    """Let the kernel count what each subvolume uses, and commit that."""
    support.run("btrfs", "quota", "enable", root)
    support.run("btrfs", "quota", "rescan", "-w", root)
    support.run("btrfs", "filesystem", "sync", root)


def quota_groups(fs: FileSystem) -> dict[int, tuple[int, int]]:
    """Return referenced and exclusive bytes of each subvolume, as the kernel has counted."""
    return {
        item.qgroupid: (item.rfer, item.excl)
        for item in fs.search(QUOTA_TREE_OBJECTID)
        if isinstance(item, QgroupInfo)
    }


def assert_as_quota_groups(fs: FileSystem, owned: Ownership) -> None:
    """Compare all subvolumes with quota groups, and all bytes with block groups."""
    counted = quota_groups(fs)
    found = {
        one.id: (one.referenced.total, one.exclusive.total)
        for one in owned.subvolumes()
        if not one.is_deleted
    }
    assert len(found) > 6
    assert found == {tree: counted[tree] for tree in found}
    assert owned.unexplained == 0
    assert owned.is_complete


def test_half_removed_subvolume(tmp_path: Path) -> None:
    with support.filesystem(tmp_path / "made", nodesize=4096, size="2G") as fs:
        share_space(fs.mountpoint)
        interrupted = interrupt(fs, tmp_path / "copy")
    with FileSystem(interrupted.images) as opened:
        owned = scan(opened)
        deleted = [one for one in owned.subvolumes() if one.is_deleted]
        assert len(deleted) == 2
        assert owned.unexplained == 0
        removed = next(one for one in deleted if one.id == interrupted.root.objectid)
        assert 0 < removed.exclusive.metadata < interrupted.root.bytes_used
        for one in deleted:
            assert one.path is None
            assert owned.freed_by([one.id]).total == 0


def space_used(root: Path) -> tuple[int, int]:
    """Return the bytes of data and metadata that a mounted filesystem has in use."""
    with FileSystem(root) as fs:
        spaces = fs.space_info()
        data = sum(space.used_bytes for space in spaces if space.flags & 1)
        metadata = sum(space.used_bytes for space in spaces if space.flags & 4)
        return data, metadata


def delete(root: Path, names: list[str]) -> None:
    """Delete subvolumes, and wait until they are cleaned up."""
    for name in names:
        support.run("btrfs", "subvolume", "delete", root / name)
    support.run("btrfs", "subvolume", "sync", root)
    support.run("btrfs", "filesystem", "sync", root)


@pytest.mark.parametrize(
    "names",
    [
        ["snapshot2"],
        ["snapshot0", "snapshot1"],
        ["writable", "snapshot of a snapshot"],
        ["snapshot0", "snapshot1", "snapshot2", "snapshot3"],
        ["home/nested", "home"],
    ],
)
def test_real_deletions(tmp_path: Path, names: list[str]) -> None:
    with support.filesystem(tmp_path) as fs:
        share_space(fs.mountpoint)
        fs.unmount()
        with FileSystem(fs.images) as opened:
            owned = scan(opened)
            ids = {one.path: one.id for one in owned.subvolumes()}
            promised = owned.freed_by([ids[name.encode()] for name in names])
        fs.mount("commit=1")
        before = space_used(fs.mountpoint)
        delete(fs.mountpoint, names)
        after = space_used(fs.mountpoint)
    assert promised.data == before[0] - after[0]
    assert promised.metadata > 0


@pytest.mark.parametrize("order", ["oldest", "fewest"])
def test_plan_comes_true(tmp_path: Path, order: Any) -> None:
    with support.filesystem(tmp_path) as fs:
        share_space(fs.mountpoint)
        choose = random.Random(2)
        for number in range(4, 9):
            support.run(
                *("btrfs", "subvolume", "snapshot", "-r"),
                *(fs.mountpoint / "home", fs.mountpoint / f"snapshot{number}"),
            )
            (fs.mountpoint / "home" / "large").write_bytes(choose.randbytes(number << 16))
            change(fs.mountpoint / "home", choose)
        fs.unmount()
        with FileSystem(fs.images) as opened:
            owned = scan(opened)
            paths = {one.id: one.path for one in owned.subvolumes()}
            plan = owned.plan(1_000_000, order=order)
            assert plan.is_enough
            assert plan.frees == owned.freed_by(plan.ids)
            assert owned.freed_by(plan.ids[:-1]).total < 1_000_000
            assert not owned.plan(1 << 40, order=order).is_enough
        fs.mount("commit=1")
        before = space_used(fs.mountpoint)
        delete(fs.mountpoint, [(paths[tree] or b"").decode() for tree in plan.ids])
        after = space_used(fs.mountpoint)
    assert plan.frees.data == before[0] - after[0]


def test_fewest_takes_what_frees_most_alone(tmp_path: Path) -> None:
    """Two snapshots share more with each other than the third has alone."""
    with support.filesystem(tmp_path) as fs:
        origin = fs.mountpoint / "origin"
        support.run("btrfs", "subvolume", "create", origin)
        for size, names in ((20 << 20, ["one", "other"]), (8 << 20, ["alone"])):
            (origin / "file").write_bytes(os.urandom(size))
            for name in names:
                snapshot = ("btrfs", "subvolume", "snapshot", "-r", origin)
                support.run(*snapshot, fs.mountpoint / name)
            (origin / "file").unlink()
        fs.sync()
        with FileSystem(fs.mountpoint, source="devices") as opened:
            owned = scan(opened)
    ids = {one.path: one.id for one in owned.subvolumes()}
    assert owned.plan(1 << 20, order="fewest").ids == [ids[b"alone"]]
    assert owned.plan(1 << 20, order="oldest").ids == [ids[b"one"], ids[b"other"]]
    both = owned.plan(9 << 20, order="fewest")
    assert sorted(both.ids) == sorted(ids[name] for name in (b"one", b"other", b"alone"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    with support.filesystem(
        tmp_path_factory.mktemp("ownership"), devices=2, data="raid1", metadata="raid1"
    ) as fs:
        share_space(fs.mountpoint)
        return fs.images


@pytest.fixture
def opened(image: list[Path]) -> FileSystem:
    return FileSystem(image)


def test_sums(opened: FileSystem) -> None:
    with opened as fs:
        owned = scan(fs)
        subvolumes = owned.subvolumes()
        everything = owned.only_in([one.id for one in subvolumes])
        sets = owned.shared_sets()
        assert sum(space.total for _, space in sets) == owned.used
        assert everything.data == sum(
            space.data for trees, space in sets if trees <= {one.id for one in subvolumes}
        )
        for one in subvolumes:
            assert one.exclusive == owned.only_in([one.id])
            assert one.exclusive.total <= one.with_snapshots.total <= everything.total
        physical = {one.id: one for one in owned.subvolumes(physical=True)}
        for one in subvolumes:
            assert physical[one.id].referenced.total == 2 * one.referenced.total
        assert owned.freed_by([257], physical=True).total == 2 * owned.freed_by([257]).total
        home = next(one for one in subvolumes if one.path == b"home")
        assert home.with_snapshots.total > 10 * home.exclusive.total
        assert 0 < home.compressed < home.uncompressed
        assert sum(one.is_read_only_snapshot for one in subvolumes) == 4


def test_arrow(opened: FileSystem) -> None:
    with opened as fs:
        owned = scan(fs)
    tables = owned.to_arrow()
    extents = tables["extents"].to_pydict()
    assert sum(extents["num_bytes"]) == owned.tables.sizes.data.sum()
    assert sum(extents["unreachable"]) == owned.entry().unreachable
    sets = tables["sets"].to_pydict()
    by_set = {tuple(trees): data for trees, data in zip(sets["trees"], sets["data"], strict=True)}
    for trees, space in owned.shared_sets():
        assert by_set[tuple(sorted(trees))] == space.data
    assert len(tables["blocks"]) * fs.nodesize == owned.tables.sizes.metadata.sum()
    links = tables["links"].to_pydict()
    assert {b"snapshot of a snapshot", b"allocated", b"compressed"} & set(links["name"])
    home = next(one.id for one in owned.subvolumes() if one.path == b"home")
    inodes = tables["inodes"].to_pydict()
    of_home = {
        inum
        for inum, number in zip(inodes["inum"], inodes["set_id"], strict=True)
        if home in sets["trees"][number]
    }
    assert len(of_home) > 200
    assert len(tables["references"]) == len(owned.tables.references)
    assert tables["inline"].num_rows > 0


def test_arrow_is_not_installed(opened: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with opened as fs, pytest.raises(BtrfsError, match="pyarrow is not installed"):
        scan(fs, names=False).to_arrow()


def test_no_such_subvolume(opened: FileSystem) -> None:
    with opened as fs:
        owned = scan(fs)
        for call in (owned.freed_by, owned.only_in):
            with pytest.raises(BtrfsError, match="there is no subvolume 4711"):
                call([256, 4711])
        with pytest.raises(BtrfsError, match="there is no subvolume 4711"):
            owned.plan(1, candidates=[4711])


def test_progress_and_cancelling(opened: FileSystem) -> None:
    seen: list[tuple[int, int]] = []

    def follow(done: int, total: int) -> None:
        seen.append((done, total))

    def cancel(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with opened as fs:
        scan(fs, progress=follow)
        assert seen == sorted(seen)
        assert seen[0][0] == 0
        assert seen[-1][0] == seen[-1][1] > 0
        with pytest.raises(KeyboardInterrupt):
            scan(fs, progress=cancel)


class Destroyed(NamedTuple):
    """A filesystem without the last leaf of a subvolume.

    Attributes:
        image: Its only device that is left.
        tree: Number of the subvolume.
        referenced: Bytes of data that it refers to.
        vaddr: Address of the leaf.
    """

    image: Path
    tree: int
    referenced: int
    vaddr: int


@pytest.fixture
def destroyed(image: list[Path], tmp_path: Path) -> Destroyed:
    copy = tmp_path / "disk.img"
    support.run("cp", "--sparse=always", image[0], copy)
    with FileSystem(copy) as fs:
        subvolumes = scan(fs).subvolumes()
        tree, whole = next(
            (one.id, one.referenced.data) for one in subvolumes if one.path == b"writable"
        )
        source = fs.block_source()
        *_, leaf = source.blocks(source.root(tree), 0, 0, (1 << 136) - 1, fail)
        places = source.trees.store.read_copies(leaf.vaddr, fs.nodesize)
        addresses = [place.paddr for place in places if place.device == str(copy)]
    with copy.open("r+b") as file:
        for address in addresses:
            file.seek(address)
            file.write(b"destroyed")
    return Destroyed(copy, tree, whole, leaf.vaddr)


def test_lost_blocks_make_it_incomplete(destroyed: Destroyed) -> None:
    with FileSystem(destroyed.image, on_error="skip") as fs:
        damaged = scan(fs)
        assert not damaged.is_complete
        subvolumes = damaged.subvolumes()
        assert [one.id for one in subvolumes if not one.is_complete] == [destroyed.tree]
        assert len(fs.lost) == 1
        rest = next(one.referenced.data for one in subvolumes if one.id == destroyed.tree)
        assert 0 < rest < destroyed.referenced
    with (
        FileSystem(destroyed.image) as fs,
        pytest.raises(BtrfsError, match=f"tree block at {destroyed.vaddr}"),
    ):
        scan(fs)


def test_another_walk_reads_only_what_is_not_known(destroyed: Destroyed) -> None:
    class Counter:
        """Counts the leaves whose items it gets."""

        leaves = 0

        def decode(self, leaves: Leaves, asked: AskedLeaves) -> int:
            assert len(leaves.read) <= len(asked.pointers)
            return len(leaves.read)

        def collect(self, decoded: int) -> None:
            self.leaves += decoded

    with FileSystem(destroyed.image, on_error="skip") as fs:
        sets, counter = RootSets(), Counter()
        graph = Graph(fs.block_source(), sets, counter)
        found = owners(fs)
        blocks, leaf_sets = graph.walk(found, lambda _done, _total: None)
        lost, leaves = graph.incomplete, counter.leaves
        again, leaf_sets_again = graph.walk(found, lambda _done, _total: None)
        assert lost == graph.incomplete != 0
        assert counter.leaves == leaves > 10
        assert (blocks.vaddr == again.vaddr).all()
        assert (blocks.set_id == again.set_id).all()
        assert sorted(leaf_sets[leaf_sets != 0]) == sorted(leaf_sets_again[leaf_sets_again != 0])


def fail(_min_key: int, _max_key: int, error: BtrfsError) -> None:
    raise error


def test_owners(opened: FileSystem) -> None:
    with opened as fs:
        found = scan(fs).tables.owners
    by_kind: dict[Kind, Callable[[int], bool]] = {
        Kind.SUBVOLUME: lambda tree: tree == 5 or 256 <= tree < 300,
        Kind.INTERNAL: lambda tree: tree < 20 or tree == 2**64 - 9,
    }
    for owner in found:
        assert by_kind[owner.kind](owner.tree)
