"""Names that type checkers must know, and misspelt ones that they must not let pass.

Each line with a misspelt name ends in a comment that expects the error. A type checker that does
not report the error complains about the comment. Nothing here is ever executed.
"""

from __future__ import annotations

from uuid import UUID

from btrfs import FileSystem
from btrfs.ctree import (
    BlockGroupItem,
    Chunk,
    DirItemList,
    ExtentItem,
    FileExtentItem,
    InodeItem,
    InodeRefList,
    QgroupInfo,
    RootItem,
)
from btrfs.ioctl import BalanceProgress, SubvolInfo
from btrfs.ondisk.columns import ItemBatch
from btrfs.ondisk.key import Key
from btrfs.ondisk.struct import Struct, fields, from_values
from btrfs.source.disk.superblock import Superblock


def items(group: BlockGroupItem, chunk: Chunk, root: RootItem, inode: InodeItem) -> None:
    numbers: list[int] = [group.used, group.used_pct, chunk.type, root.level, inode.mode]
    printed: list[str] = [group.used_str, chunk.type_str, root.flags_str, inode.mode_str]
    found: tuple[UUID, Key, int] = (root.uuid, root.drop_progress, group.header.transid)
    print(numbers, printed, found, group.key.objectid)
    print(group.usde)  # type: ignore[attr-defined]
    print(group.usde_pct)  # type: ignore[attr-defined]
    print(group.used_strr)  # type: ignore[attr-defined]
    print(group.chunk_objectid_str)  # type: ignore[attr-defined]
    print(group.header.tranid)  # type: ignore[attr-defined]
    print(chunk.num_stripe)  # type: ignore[attr-defined]
    print(chunk.typ_str)  # type: ignore[attr-defined]
    print(root.uid)  # type: ignore[attr-defined]
    print(root.drop_progress.object_id)  # type: ignore[attr-defined]
    print(inode.mtime.secs)  # type: ignore[attr-defined]
    root.generatoin = 5  # type: ignore[attr-defined]


def inside_items(chunk: Chunk, names: InodeRefList, entries: DirItemList) -> None:
    number: int = chunk.stripes[0].devid
    printed: str = names.elements[0].name_str
    print(number, printed, names.elements[0].index, entries.elements[0].location.objectid)
    print(chunk.stripes[0].device)  # type: ignore[attr-defined]
    print(names.elements[0].name_string)  # type: ignore[attr-defined]
    print(entries.elements[0].loc)  # type: ignore[attr-defined]


def elements_of_lists(names: InodeRefList, entries: DirItemList) -> None:
    printed: str = names[0].name_str
    print(printed, [entry.type_str for entry in entries])
    print(names[0].nmae)  # type: ignore[attr-defined]
    print([entry.tpye_str for entry in entries])  # type: ignore[attr-defined]


def references(extent: ExtentItem, piece: FileExtentItem, group: QgroupInfo) -> None:
    numbers: list[int] = [extent.extent_data_refs[0].root, piece.disk_bytenr, group.rfer]
    print(numbers, extent.flags_str, piece.compression_str, group.qgroupid_str)
    print(extent.extent_data_refs[0].inode)  # type: ignore[attr-defined]
    print(extent.flag_str)  # type: ignore[attr-defined]
    print(piece.disk_bytes)  # type: ignore[attr-defined]
    print(piece.type_st)  # type: ignore[attr-defined]
    print(group.refer)  # type: ignore[attr-defined]


def results(fs: FileSystem, info: SubvolInfo, progress: BalanceProgress) -> None:
    usage = fs.usage()
    numbers: list[int] = [usage.total, fs.fs_info().nodesize, fs.dev_info(1).total_bytes]
    printed: list[str] = [usage.total_str, info.name_str, progress.state_str]
    print(numbers, printed, usage.dev_usage[1].allocated_str, fs.space_info()[0].flags_str)
    print(usage.totl)  # type: ignore[attr-defined]
    print(usage.totl_str)  # type: ignore[attr-defined]
    print(usage.dev_usage[1].alocated_str)  # type: ignore[attr-defined]
    print(fs.fs_info().node_size)  # type: ignore[attr-defined]
    print(fs.dev_info(1).total_byte_str)  # type: ignore[attr-defined]
    print(fs.space_info()[0].flag_str)  # type: ignore[attr-defined]
    print(fs.features().incompat)  # type: ignore[attr-defined]
    print(info.name_string)  # type: ignore[attr-defined]
    print(progress.status_str)  # type: ignore[attr-defined]


def superblock(sb: Superblock) -> None:
    print(sb.incompat_flags_str, sb.dev_item.devid, sb.label)
    print(sb.incompat_flag_str)  # type: ignore[attr-defined]
    print(sb.dev_item.dev_id)  # type: ignore[attr-defined]


def columns(batch: ItemBatch, key: Key) -> None:
    print(batch.objectid.sum(), batch.columns(BlockGroupItem)["used"], key.offset)
    print(batch.object_id)  # type: ignore[attr-defined]
    print(batch.column(BlockGroupItem))  # type: ignore[attr-defined]
    print(key.ofset)  # type: ignore[attr-defined]


def declarations(struct: Struct) -> None:
    print([field.name for field in fields(struct)], from_values(BlockGroupItem, used=5).used_str)
    print([field.nmae for field in fields(struct)])  # type: ignore[attr-defined]
    print(from_values(BlockGroupItem, used=5).used_string)  # type: ignore[attr-defined]
