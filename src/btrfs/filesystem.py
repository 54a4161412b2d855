"""FileSystem: where to begin. It opens the right source for what it is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self, cast

from btrfs.errors import BtrfsError, ItemNotFoundError
from btrfs.info import DevInfo, DevStats, FeatureFlags, FsInfo, SpaceInfo
from btrfs.ondisk import constants, free_space
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.items.base import ItemData, classify
from btrfs.ondisk.items.chunk import BlockGroupItem, Chunk
from btrfs.ondisk.items.device import DevExtent, DevItem
from btrfs.ondisk.items.extent import ExtentItem, MetaDataItem
from btrfs.ondisk.items.free_space import FreeSpaceBitmap, FreeSpaceExtent
from btrfs.ondisk.items.root import RootItem
from btrfs.ondisk.key import Key
from btrfs.source import lookup
from btrfs.source.base import OnError, ReadOptions, Source
from btrfs.source.choice import SourceChoice, Target, open_source
from btrfs.source.damage import Damage, LostKeys

if TYPE_CHECKING:
    from btrfs.ondisk.columns import Columns, ItemBatch
    from btrfs.source.disk.source import DiskSource
    from btrfs.space.usage import FsUsage

__all__ = ["FileSystem", "Target"]

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
              in the list, those of seeds among them, are looked for among block devices and beside
              the given images.
        source: What to read, instead of 'auto': 'mounted' asks the kernel, 'unmounted' reads
            devices or images that are not mounted, and 'devices' reads the devices of what is
            mounted, as of the last commit, which takes root; see :mod:`btrfs.source.live`.
        superblock: Of an unmounted filesystem, which copy of the superblock to go by, 0 to 2. If
            none is chosen it is the newest that is valid.
        backup_root: Which backup of the root tree to read, 0 to 3, instead of the current one: the
            filesystem as it was some commits ago, as far as nothing has been written over it.
        on_error: What to do about what cannot be read, be it that all copies of a tree block are
            damaged or on missing devices: 'raise', or 'skip' to leave it out, see :attr:`lost`.
        unknown_features: Read it also where it has features that are not known here.

    Attributes:
        path: What was opened: of a mounted block device, its mount point; of a list, the first.
        fsid: UUID of the filesystem.
        nodesize: Bytes of a tree block.
        sectorsize: Bytes of the smallest extent of data.
        mounted: Whether it is mounted, so that there is a kernel to call.

    Devices may be missing, out of date or damaged: that is no error as long as what is asked for
    can be read. :attr:`damage` and :attr:`notes` list what is wrong.

    Raises:
        NotBtrfsError: There is no btrfs.
        UnsupportedFeatureError: It has features that are not known here.
        BtrfsError: It cannot be opened; subclasses say why.
        OSError: A file cannot be opened.

    Use it in a with statement, or call :meth:`close`::

        with btrfs.FileSystem('/') as fs:
            print(fs.top_level().generation)
    """

    def __init__(
        self,
        path: Target | Sequence[Target],
        *,
        source: SourceChoice = "auto",
        superblock: int | None = None,
        backup_root: int | None = None,
        on_error: OnError = "raise",
        unknown_features: bool = False,
    ) -> None:
        options = ReadOptions(superblock, backup_root, on_error, unknown_features)
        opened = open_source(path, source, options)
        self._source: Source | None = opened
        self._log = opened.log
        self.mounted = opened.mounted
        self.path = opened.path
        try:
            info = opened.fs_info()
        except BaseException:
            opened.close()
            raise
        self.fsid = info.fsid
        self.nodesize = info.nodesize
        self.sectorsize = info.sectorsize

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: object, exc_value: object, exc_traceback: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._source is None else "mounted" if self.mounted else "not mounted"
        return f"<btrfs.FileSystem {self.path!r} fsid {self.fsid} {state}>"

    def close(self) -> None:
        """Close all files. Look-ups raise BtrfsError from then on."""
        if self._source is not None:
            self._source.close()
            self._source = None

    @property
    def fd(self) -> int:
        """File descriptor for :mod:`btrfs.ioctl`. A script may close it.

        Raises:
            NotMountedError: The filesystem is not mounted.
        """
        return self.source.fd

    # Where its metadata comes from.

    @property
    def source(self) -> Source:
        """The source that answers all questions about this filesystem.

        Raises:
            BtrfsError: The filesystem is closed.
        """
        if self._source is None:
            raise BtrfsError("the filesystem is closed", hint="open it again")
        return self._source

    def block_source(self) -> DiskSource:
        """Return the source of a filesystem that is read from its devices, or from a dump.

        It shows tree blocks and their copies, see :class:`btrfs.source.blocks.BlockSource`; the
        kernel shows items alone.

        Raises:
            BtrfsError: The filesystem is mounted and read through the kernel, or it is closed.
        """
        from btrfs.source.disk.source import DiskSource

        if isinstance(self.source, DiskSource):
            return self.source
        raise BtrfsError(
            f"{self.path} is mounted, and the kernel does not show such trees",
            hint="read its devices with --source devices, or unmount it",
        )

    # What is wrong with it.

    @property
    def damage(self) -> list[Damage]:
        """Bytes that did not pass a check so far, whether another copy served or not.

        It grows while more is read. If the kernel is asked, it is empty: that writes what it met to
        its own log, and counts it in :meth:`dev_stats`.
        """
        return self._log.damage

    @property
    def lost(self) -> list[LostKeys]:
        """Ranges of keys that were left out so far; always empty if errors are raised."""
        return self._log.lost

    @property
    def notes(self) -> list[str]:
        """Remarks on its state, one line each: a device is missing, there is a log tree ..."""
        return self._log.notes

    def damage_summary(self) -> str | None:
        """Return damage, lost keys and notes in one line; None if there are none."""
        return self._log.summary()

    # The filesystem as a whole.

    @property
    def label(self) -> str:
        """Name that the user gave the filesystem, empty if none."""
        return self.source.label()

    def fs_info(self) -> FsInfo:
        """Return what describes the filesystem as a whole."""
        return self.source.fs_info()

    def dev_info(self, devid: int) -> DevInfo:
        """Return what describes a device.

        Raises:
            OSError: ENODEV if there is no device of that number.
        """
        return self.source.dev_info(devid)

    def dev_stats(self, devid: int, reset: bool = False) -> DevStats:
        """Return the counters of errors of a device.

        Args:
            devid: Number of the device.
            reset: Set the counters to zero after reading them.

        Raises:
            OSError: ENODEV if there is no device of that number.
            NotMountedError: They are to be reset, but it is not mounted.
        """
        return self.source.dev_stats(devid, reset)

    def space_info(self) -> list[SpaceInfo]:
        """Return the sizes of all block groups, one entry per type and profile."""
        return self.source.space_info()

    def features(self) -> FeatureFlags:
        """Return the features that the filesystem uses."""
        return self.source.features()

    def mixed_groups(self) -> bool:
        """Return whether data and metadata share block groups."""
        return bool(self.features().incompat_flags & constants.FEATURE_INCOMPAT_MIXED_GROUPS)

    def usage(self) -> FsUsage:
        """Return what is allocated and used, and what can be.

        This is a convenience for scripts, and the only method that stands on more than sources:
        :class:`btrfs.space.usage.FsUsage` takes any object with a few of these look-ups.
        """
        from btrfs.space import usage

        return usage.FsUsage(self)

    def sync(self) -> None:
        """Commit the running transaction, so that all changes up to now can be searched.

        Raises:
            NotMountedError: It is not mounted.
        """
        self.source.sync()

    def refresh(self) -> bool:
        """Show the last commit from now on; return whether it is a newer one than before.

        Only of use where the devices of a mounted filesystem are read: the kernel shows what is
        there now, and what is not mounted does not change.
        """
        return self.source.refresh()

    # Items, as objects and in bulk.

    def search(
        self, tree: int, min_key: Key | None = None, max_key: Key | None = None
    ) -> Iterator[ItemData]:
        """Yield the items of a tree whose keys lie between two keys, both included.

        Args:
            tree: Number of the tree; 0 for the subvolume that the path is in.
            min_key: The lowest key, if not all.
            max_key: The highest key, if not all.

        While a mounted filesystem is written to, the items may be of several commits: what comes
        later may be newer.

        Raises:
            OSError: ENOENT if there is no such tree.
            CorruptError: A tree block or an item is damaged.
        """
        return lookup.items(self.source, tree, min_key or _MIN_KEY, max_key or _MAX_KEY)

    def batches(
        self, tree: int, min_key: Key | None = None, max_key: Key | None = None
    ) -> Iterator[ItemBatch]:
        """Yield the same items as :meth:`search`, many at a time; see :mod:`btrfs.ondisk.columns`.

        How much memory that takes does not depend on how many items there are.
        """
        return self.source.batches(tree, min_key or _MIN_KEY, max_key or _MAX_KEY)

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
            Arrays by name, see :meth:`btrfs.ondisk.columns.ItemBatch.columns`.

        Raises:
            ValueError: The class is of no type of key, or its items are in several trees.
            OSError: ENOENT if there is no such tree.
            CorruptError: A tree block or an item is damaged.
        """
        if tree is None:
            tree = lookup.tree_of(self.source, cls)
        for batch in self.batches(tree, min_key, max_key):
            for columns in lookup.decode_columns(self.source, tree, batch, cls):
                if len(columns["key_type"]):
                    yield columns

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
        return lookup.chunks(self.source, min_vaddr, max_vaddr, nr_items)

    def block_group(self, vaddr: int, length: int | None = None) -> BlockGroupItem:
        """Return the block group that begins at a virtual address.

        Args:
            vaddr: The address.
            length: Bytes of the block group, if known.

        Raises:
            ItemNotFoundError: There is none.
        """
        return lookup.block_group(self.source, vaddr, length)

    def block_groups(
        self, min_vaddr: int = 0, max_vaddr: int = ULLONG_MAX, nr_items: int | None = None
    ) -> Iterator[BlockGroupItem]:
        """Yield the block groups that begin between two virtual addresses.

        Args:
            min_vaddr: The lowest address.
            max_vaddr: The highest address.
            nr_items: Yield at most so many.
        """
        return lookup.block_groups(self.source, min_vaddr, max_vaddr, nr_items)

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
            load_data_refs: Decode the references to extents of data: inline references, and those
                that are items of their own, together.
            load_metadata_refs: The same for tree blocks.
        """
        from btrfs.source.extents import extents

        min_key = Key(min_vaddr, 0, 0)
        max_key = Key(max_vaddr, 255, ULLONG_MAX)
        return extents(self.source, min_key, max_key, load_data_refs, load_metadata_refs)

    def free_space_extents(
        self, min_vaddr: int = 0, max_vaddr: int = ULLONG_MAX
    ) -> Iterator[free_space.FreeSpaceExtent]:
        """Yield the free ranges inside block groups, from the free space tree.

        Args:
            min_vaddr: Lowest address of an item of that tree.
            max_vaddr: Highest address of such an item.

        Raises:
            OSError: ENOENT if the filesystem has no free space tree.
        """
        min_key = Key(min_vaddr, 0, 0)
        max_key = Key(max_vaddr, 255, ULLONG_MAX)
        for item in self.search(constants.FREE_SPACE_TREE_OBJECTID, min_key, max_key):
            if isinstance(item, FreeSpaceExtent):
                yield free_space.FreeSpaceExtent(item.vaddr, item.length)
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

    def search_root(
        self, root: RootItem, min_key: Key | None = None, max_key: Key | None = None
    ) -> Iterator[ItemData]:
        """Yield items of the tree that a root item leads to, if the kernel is not asked.

        For trees that :meth:`search` cannot name: those of :meth:`log_trees`, subvolumes that are
        deleted but not yet cleaned up, and those that a balance is moving.

        Raises:
            BtrfsError: The filesystem is read through the kernel.
            StaleError: It is mounted, and blocks of the tree were overwritten meanwhile.
            CorruptError: A tree block or an item is damaged.
        """
        source = self.block_source()
        found = source.search_root(root, min_key or _MIN_KEY, max_key or _MAX_KEY)
        return lookup.decode_items(source, root.objectid, found, classify)

    def log_trees(self) -> Iterator[RootItem]:
        """Yield the roots of the log trees, one per subvolume: key.offset is its number.

        They are there if the filesystem was not cleanly unmounted, and have what was synced after
        the last commit (fs/btrfs/tree-log.c). Other look-ups do not see that. Those of a mounted
        filesystem belong to the running transaction, and are not among what its devices show.

        Raises:
            BtrfsError: The filesystem is read through the kernel.
        """
        if not self.block_source().superblock.log_root:
            return
        for item in self.search(constants.TREE_LOG_OBJECTID):
            if isinstance(item, RootItem):
                yield item

    def orphan_subvol_ids(self) -> list[int]:
        """Return the numbers of subvolumes that are deleted but not yet cleaned up."""
        objectid, key_type = constants.ORPHAN_OBJECTID, constants.ORPHAN_ITEM_KEY
        min_key = Key(objectid, key_type, 0)
        max_key = Key(objectid, key_type, ULLONG_MAX)
        found = self.search(constants.ROOT_TREE_OBJECTID, min_key, max_key)
        return [item.key.offset for item in found]
