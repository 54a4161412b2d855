"""FileSystem: where to begin. It opens the right source for what it is given."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Self, cast

from btrfs import constants, free_space_tree
from btrfs.constants import ULLONG_MAX
from btrfs.errors import ItemNotFoundError, NotMountedError
from btrfs.items.base import ItemData
from btrfs.items.chunk import BlockGroupItem, Chunk
from btrfs.items.device import DevExtent, DevItem
from btrfs.items.extent import (
    ExtentDataRef,
    ExtentItem,
    MetaDataItem,
    SharedBlockRef,
    SharedDataRef,
    TreeBlockRef,
)
from btrfs.items.free_space import FreeSpaceBitmap, FreeSpaceExtent
from btrfs.items.root import RootItem
from btrfs.key import Key
from btrfs.source import lookup
from btrfs.source.kernel import KernelSource
from btrfs.source.mounts import mount_of_device

if TYPE_CHECKING:
    from btrfs.columns import Columns, ItemBatch
    from btrfs.fs_usage import FsUsage
    from btrfs.ioctl import DevInfo, DevStats, FeatureFlags, FsInfo, SpaceInfo
    from btrfs.source.base import Source

__all__ = ["FileSystem", "Target"]

Target = str | os.PathLike[str]
SourceChoice = Literal["auto", "mounted", "unmounted"]

_MIN_KEY = Key(0, 0, 0)
_MAX_KEY = Key(-1, -1, -1)


class FileSystem:
    """A btrfs filesystem.

    Args:
        path: What to open:

            * a folder: the filesystem mounted there;
            * a block device: that device, through its mount point if it is mounted;
            * a file with a btrfs in it, or a dump made by btrfs-image: what it holds;
            * any other file: the filesystem that it lies on;
            * a list of devices or images: the filesystem that they make up. Members that are not
              in the list are looked for among block devices and beside the given images.
        source: 'mounted' or 'unmounted' to choose instead of 'auto'.

    Attributes:
        path: What was opened: of a mounted block device, its mount point; of a list, the first.
        fsid: UUID of the filesystem.
        nodesize: Bytes of a tree block.
        sectorsize: Bytes of the smallest extent of data.
        mounted: Whether the running kernel answers.

    Raises:
        NotBtrfsError: There is no btrfs.
        BtrfsError: It cannot be opened; subclasses say why.
        OSError: A file cannot be opened.

    Use it in a with statement, or call :meth:`close`::

        with btrfs.FileSystem('/') as fs:
            print(fs.top_level().generation)
    """

    def __init__(self, path: Target | Sequence[Target], *, source: SourceChoice = "auto") -> None:
        targets = [path] if isinstance(path, str | os.PathLike) else list(path)
        if not targets:
            raise ValueError("nothing to open")
        paths = [os.fspath(target) for target in targets]
        self._source = _open_source(paths, source)
        self.mounted = self._source.mounted
        self.path = self._source.path
        try:
            info = self._source.fs_info()
        except BaseException:
            self._source.close()
            raise
        self.fsid = info.fsid
        self.nodesize = info.nodesize
        self.sectorsize = info.sectorsize

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: object, exc_value: object, exc_traceback: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files. The object is of no use any more."""
        self._source.close()

    @property
    def fd(self) -> int:
        """File descriptor for :mod:`btrfs.ioctl`.

        Raises:
            NotMountedError: It is not mounted.
        """
        if isinstance(self._source, KernelSource):
            return self._source.fd
        raise NotMountedError(
            f"{self.path} is not mounted, so there is no file descriptor to call the kernel with",
            hint="mount it, or use what needs no ioctl: search() and the look-ups",
        )

    # The filesystem as a whole.

    @property
    def label(self) -> str:
        """Name that the user gave the filesystem, empty if none."""
        return self._source.label()

    def fs_info(self) -> FsInfo:
        """Return what there is to know of the filesystem as a whole."""
        return self._source.fs_info()

    def dev_info(self, devid: int) -> DevInfo:
        """Return what there is to know of a device.

        Raises:
            OSError: ENODEV if there is no device of that number.
        """
        return self._source.dev_info(devid)

    def dev_stats(self, devid: int, reset: bool = False) -> DevStats:
        """Return the counters of errors of a device.

        Args:
            devid: Number of the device.
            reset: Set the counters to zero after reading them.

        Raises:
            OSError: ENODEV if there is no device of that number.
            NotMountedError: They are to be reset, but it is not mounted.
        """
        return self._source.dev_stats(devid, reset)

    def space_info(self) -> list[SpaceInfo]:
        """Return the sizes of all block groups, one entry per type and profile."""
        return self._source.space_info()

    def features(self) -> FeatureFlags:
        """Return the features that the filesystem uses."""
        return self._source.features()

    def mixed_groups(self) -> bool:
        """Return whether data and metadata share block groups."""
        return bool(self.features().incompat_flags & constants.FEATURE_INCOMPAT_MIXED_GROUPS)

    def usage(self) -> FsUsage:
        """Return what is allocated and used, and what can be."""
        from btrfs import fs_usage

        return fs_usage.FsUsage(self)

    def sync(self) -> None:
        """Commit the running transaction, so that all changes up to now can be searched.

        Raises:
            NotMountedError: It is not mounted.
        """
        self._source.sync()

    # Items, as objects and in bulk.

    def search(
        self, tree: int, min_key: Key | None = None, max_key: Key | None = None
    ) -> Iterator[ItemData]:
        """Yield the items of a tree whose keys lie between two keys, both included.

        Args:
            tree: Number of the tree; 0 for the subvolume that the path is in.
            min_key: The lowest key, if not all.
            max_key: The highest key, if not all.

        Raises:
            OSError: ENOENT if there is no such tree.
            CorruptError: A tree block or an item is damaged.
        """
        return lookup.items(self._source, tree, min_key or _MIN_KEY, max_key or _MAX_KEY)

    def batches(
        self, tree: int, min_key: Key | None = None, max_key: Key | None = None
    ) -> Iterator[ItemBatch]:
        """Yield the same items as :meth:`search`, many at a time; see :mod:`btrfs.columns`.

        How much memory that takes does not depend on how many items there are.
        """
        return self._source.batches(tree, min_key or _MIN_KEY, max_key or _MAX_KEY)

    def columns(
        self,
        cls: type[ItemData],
        min_key: Key | None = None,
        max_key: Key | None = None,
        tree: int | None = None,
    ) -> Iterator[Columns]:
        """Yield the items of one class as numpy columns, some thousands of items at a time.

        Args:
            cls: The class, for instance ExtentItem.
            min_key: The lowest key, if not all.
            max_key: The highest key, if not all.
            tree: Number of the tree, for a class whose items are in more than one.

        Yields:
            Arrays by name, see :meth:`btrfs.columns.ItemBatch.columns`.

        Raises:
            ValueError: The class does not tell the tree, or is of no type of key.
            OSError: ENOENT if there is no such tree.
            CorruptError: A tree block or an item is damaged.
        """
        if tree is None:
            tree = self._tree_of(cls)
        for batch in self.batches(tree, min_key, max_key):
            columns = batch.columns(cls)
            if len(columns["key_type"]):
                yield columns

    def _tree_of(self, cls: type[ItemData]) -> int:
        if cls is BlockGroupItem:
            return lookup.block_group_tree(self._source)
        if not hasattr(cls, "key_type"):
            raise ValueError(f"{cls.__name__} stands for no type of key, so it has no columns")
        if cls.home_tree is None:
            raise ValueError(f"{cls.__name__} items are in several trees: say which one")
        return cls.home_tree

    # Devices and the space on them.

    def devices(self, min_devid: int = 1, max_devid: int = ULLONG_MAX) -> Iterator[DevItem]:
        """Yield the devices, between two numbers if not all."""
        objectid, key_type = constants.DEV_ITEMS_OBJECTID, constants.DEV_ITEM_KEY
        min_key = Key(objectid, key_type, min_devid)
        max_key = Key(objectid, key_type, max_devid)
        return cast(
            "Iterator[DevItem]", self.search(constants.CHUNK_TREE_OBJECTID, min_key, max_key)
        )

    def dev_extents(self, min_devid: int = 1, max_devid: int = ULLONG_MAX) -> Iterator[DevExtent]:
        """Yield the allocated ranges of devices, between two numbers if not all."""
        min_key = Key(min_devid, constants.DEV_EXTENT_KEY, 0)
        max_key = Key(max_devid, constants.DEV_EXTENT_KEY, ULLONG_MAX)
        for item in self.search(constants.DEV_TREE_OBJECTID, min_key, max_key):
            if isinstance(item, DevExtent):
                yield item

    def chunks(
        self, min_vaddr: int = 0, max_vaddr: int = ULLONG_MAX, nr_items: int | None = None
    ) -> Iterator[Chunk]:
        """Yield the chunks that begin between two virtual addresses.

        Args:
            min_vaddr: The lowest address.
            max_vaddr: The highest address.
            nr_items: Yield at most so many.
        """
        return lookup.chunks(self._source, min_vaddr, max_vaddr, nr_items)

    def block_group(self, vaddr: int, length: int | None = None) -> BlockGroupItem:
        """Return the block group that begins at a virtual address.

        Args:
            vaddr: The address.
            length: Bytes of the block group, if known.

        Raises:
            ItemNotFoundError: There is none.
        """
        return lookup.block_group(self._source, vaddr, length)

    def block_groups(
        self, min_vaddr: int = 0, max_vaddr: int = ULLONG_MAX, nr_items: int | None = None
    ) -> Iterator[BlockGroupItem]:
        """Yield the block groups that begin between two virtual addresses.

        Args:
            min_vaddr: The lowest address.
            max_vaddr: The highest address.
            nr_items: Yield at most so many.
        """
        return lookup.block_groups(self._source, min_vaddr, max_vaddr, nr_items)

    def extents(
        self,
        min_vaddr: int = 0,
        max_vaddr: int = ULLONG_MAX,
        load_data_refs: bool = False,
        load_metadata_refs: bool = False,
    ) -> Iterator[ExtentItem | MetaDataItem]:
        """Yield the extents that begin between two virtual addresses.

        For millions of them, :meth:`columns` is many times faster.

        Args:
            min_vaddr: The lowest address.
            max_vaddr: The highest address.
            load_data_refs: Decode who refers to extents of data: inline references, and those
                that are items of their own, together.
            load_metadata_refs: The same for tree blocks.
        """
        min_key = Key(min_vaddr, 0, 0)
        max_key = Key(max_vaddr, 255, ULLONG_MAX)
        found = self._source.search(constants.EXTENT_TREE_OBJECTID, min_key, max_key)
        extent: ExtentItem | MetaDataItem | None = None
        for header, data in found:
            if header.type == constants.EXTENT_ITEM_KEY:
                if extent is not None:
                    yield extent
                extent = ExtentItem(header, data, load_data_refs, load_metadata_refs)
            elif header.type == constants.METADATA_ITEM_KEY:
                if extent is not None:
                    yield extent
                extent = MetaDataItem(header, data, load_metadata_refs)
            elif header.type in _REF_LISTS and extent is not None:
                name, cls = _REF_LISTS[header.type]
                refs = getattr(extent, name, None)
                if refs is not None and header.objectid == extent.vaddr:
                    refs.append(cls(header, data))
        if extent is not None:
            yield extent

    def free_space_extents(
        self, min_vaddr: int = 0, max_vaddr: int = ULLONG_MAX
    ) -> Iterator[free_space_tree.FreeSpaceExtent]:
        """Yield the free ranges inside block groups, from the free space tree.

        Args:
            min_vaddr: Lowest address of an item of that tree, and
            max_vaddr: highest address.

        Raises:
            OSError: ENOENT if the filesystem has no free space tree.
        """
        min_key = Key(min_vaddr, 0, 0)
        max_key = Key(max_vaddr, 255, ULLONG_MAX)
        for item in self.search(constants.FREE_SPACE_TREE_OBJECTID, min_key, max_key):
            if isinstance(item, FreeSpaceExtent):
                yield free_space_tree.FreeSpaceExtent(item.vaddr, item.length)
            elif isinstance(item, FreeSpaceBitmap):
                yield from item.unpack(self.sectorsize)

    # Subvolumes.

    def top_level(self) -> RootItem:
        """Return the subvolume that all others are in, number 5.

        Raises:
            ItemNotFoundError: There is none, which only happens to a damaged filesystem.
        """
        for root in self._root_items(constants.FS_TREE_OBJECTID, constants.FS_TREE_OBJECTID):
            return root
        raise ItemNotFoundError("No root item of the top level subvolume")

    def subvolumes(
        self,
        min_id: int = constants.FIRST_FREE_OBJECTID,
        max_id: int = constants.LAST_FREE_OBJECTID,
    ) -> Iterator[RootItem]:
        """Yield the subvolumes, between two numbers if not all, without the top level."""
        return self._root_items(min_id, max_id)

    def _root_items(self, min_id: int, max_id: int) -> Iterator[RootItem]:
        min_key = Key(min_id, constants.ROOT_ITEM_KEY, 0)
        max_key = Key(max_id, constants.ROOT_ITEM_KEY, ULLONG_MAX)
        for item in self.search(constants.ROOT_TREE_OBJECTID, min_key, max_key):
            if isinstance(item, RootItem):
                yield item

    def orphan_subvol_ids(self) -> list[int]:
        """Return the numbers of subvolumes that are deleted but not yet cleaned up."""
        objectid, key_type = constants.ORPHAN_OBJECTID, constants.ORPHAN_ITEM_KEY
        min_key = Key(objectid, key_type, 0)
        max_key = Key(objectid, key_type, ULLONG_MAX)
        found = self.search(constants.ROOT_TREE_OBJECTID, min_key, max_key)
        return [item.key.offset for item in found]


# Where a reference that is an item of its own is added to the extent before it.
_REF_LISTS = {
    constants.TREE_BLOCK_REF_KEY: ("tree_block_refs", TreeBlockRef),
    constants.SHARED_BLOCK_REF_KEY: ("shared_block_refs", SharedBlockRef),
    constants.EXTENT_DATA_REF_KEY: ("extent_data_refs", ExtentDataRef),
    constants.SHARED_DATA_REF_KEY: ("shared_data_refs", SharedDataRef),
}


def _open_source(paths: list[str], choice: SourceChoice) -> Source:
    """Open what the paths stand for; see FileSystem."""
    if choice == "auto":
        mount = _mount_of(paths)
        if mount is not None:
            return KernelSource(mount)
        if len(paths) == 1 and not _is_device_or_image(paths[0]):
            return KernelSource(paths[0])
        choice = "unmounted"
    if choice == "unmounted":
        from btrfs.source.disk.source import open_unmounted

        return open_unmounted(paths)
    if choice == "mounted":
        return KernelSource(_mount_of(paths) or paths[0])
    raise ValueError(f"source is {choice!r}, but must be 'auto', 'mounted' or 'unmounted'")


def _mount_of(paths: list[str]) -> str | None:
    """Return where the filesystem is mounted if the paths are all block devices of it."""
    if not all(stat.S_ISBLK(os.stat(path).st_mode) for path in paths):
        return None
    mounts = {mount_of_device(path) for path in paths}
    return mounts.pop() if len(mounts) == 1 else None


def _is_device_or_image(path: str) -> bool:
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        from btrfs.source.disk.source import holds_btrfs

        return holds_btrfs(path)
    return stat.S_ISBLK(mode)
