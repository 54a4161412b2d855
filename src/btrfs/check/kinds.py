"""The kinds of findings: what each is called, and what a user may do about it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["KINDS", "Kind"]


class Kind(NamedTuple):
    """A kind of finding.

    Attributes:
        heading: The heading of a list of such findings.
        advice: What a user may do, in one line.
        is_remark: Whether nothing is damaged by it: what is told is only worth knowing.
    """

    heading: str
    advice: str
    is_remark: bool = False


_SCRUB = "btrfs scrub, once it is mounted, repairs what another copy makes good"
_RESCUE = (
    "copy what can be read to another place before anything is repaired; mount -o ro,rescue=all may"
    " still show files"
)
_CONNECT = "connect the missing device, or mount -o degraded and replace it"
_SUPER = "btrfs rescue super-recover writes copies of the superblock anew"
_DEVICE = "the number is made right when the device is resized or removed; make a backup first"
_BACKUP = (
    "make a backup while the files can be read; btrfs check --repair can mend some of this, and can"
    " make it worse"
)
_ALLOCATION = (
    "do not write to it: what is in use could be overwritten; make a backup, and a new filesystem"
)
_FREE_SPACE = "btrfs check --clear-space-cache v2 removes the tree; the next mount makes it anew"
_BAD_FILE = "restore the file from a backup, or delete it"
_RESTORE = (
    "btrfs restore -r NUMBER DEVICE FOLDER takes the files of a subvolume out without its path; do"
    " that, and then copy all to a new filesystem"
)
_LOST_SUBVOLUME = (
    "the subvolume is gone, so restore it from a backup; btrfs-find-root may tell of an older tree"
)
_SUBVOLUME = (
    "copy the files of the subvolume while they can be read, by mount -o subvolid=NUMBER or by"
    " btrfs restore -r NUMBER; deleting or renaming it may make the kernel stop"
)
_EMPTY_DIRECTORY = "nothing can be read there, but names around it can; rmdir may remove it"
_LOG = (
    "mount -o ro,rescue=nologreplay shows the last commit; btrfs rescue zero-log DEVICE throws away"
    " what was synced after it, half a minute at most, so that it can be mounted again"
)
_RESCAN = (
    "btrfs quota rescan counts anew; for simple quotas, btrfs quota disable and btrfs quota enable"
    " --simple begin anew"
)
_QUOTA = (
    "btrfs quota disable removes all groups, so note the limits before; then btrfs quota enable"
    " makes new ones"
)
_UUIDS = "mount it once with -o rescan_uuid_tree, which makes the UUID tree right"

KINDS = {
    # superblocks
    "superblock-invalid": Kind("copies of the superblock that cannot be used", _SUPER),
    "superblock-differs": Kind(
        "copies of the superblock that are not like the newest one",
        "the next commit writes all anew",
    ),
    "superblock-behind": Kind(
        "copies of the superblock that a crash kept from being written",
        "nothing is lost; the next commit writes all anew",
        True,
    ),
    "device-behind": Kind(
        "devices whose superblock a crash kept from being written",
        "the next commit writes all anew; btrfs scrub shows whether anything else is missing",
        True,
    ),
    "superblock-field": Kind("numbers of the superblock that cannot be", _BACKUP),
    "device-missing": Kind("devices that are missing", _CONNECT),
    "device-stale": Kind("devices that are out of date", _SCRUB),
    "device-cut-off": Kind(
        "devices that are smaller than they should be", "find out what made the device smaller"
    ),
    "device-item": Kind("devices whose superblock and device item do not agree", _DEVICE),
    "device-sums": Kind(
        "numbers of the superblock that do not agree with the devices",
        "btrfs rescue fix-device-size makes sizes right",
    ),
    # trees
    "block-damaged": Kind("tree blocks, or copies of them, that do not pass the checks", _SCRUB),
    "keys-lost": Kind("items that cannot be read from any copy", _RESCUE),
    "block-owner": Kind("tree blocks that say that they belong to another tree", _BACKUP),
    "block-unwritten": Kind(
        "tree blocks that say that they have not been written: the kernel does not read them",
        _RESCUE,
    ),
    "item-damaged": Kind("items that cannot be what they should be", _BACKUP),
    "tree-missing": Kind("trees that there must be, but are not", _RESCUE),
    "key-type": Kind("items in a tree that such items do not belong in", _BACKUP),
    # files
    "inode-missing": Kind("items of an inode that does not exist", _BACKUP),
    "inode-links": Kind("inodes that do not have as many names as they say", _BACKUP),
    "inode-type": Kind("inodes with items that their type cannot have", _BACKUP),
    "inode-bytes": Kind(
        "inodes that do not count the bytes of their data right",
        "a copy of the file has the right number",
    ),
    "directory-size": Kind("directories whose size is not that of their names", _BACKUP),
    "symlink": Kind("symbolic links that are not as long as they say", _BACKUP),
    "file-overlaps": Kind("files of which two pieces overlap", _BAD_FILE),
    "hole-missing": Kind("files with a hole that nothing stands for", _BACKUP),
    "checksums-missing": Kind(
        "files of which data lacks checksums: it cannot be told whether it is right", _BAD_FILE
    ),
    "checksums-too-many": Kind("files that must have no checksums, but have", _BACKUP),
    "orphan-missing": Kind("deleted files that are never removed", _BACKUP),
    "orphan-needless": Kind(
        "files with a name that are noted to be deleted",
        "the next mount takes the note away, and keeps the file",
        True,
    ),
    "entry-without-inode": Kind("names that lead to no inode", _BACKUP),
    "entry-without-link": Kind("names of directories that the inode does not have", _BACKUP),
    "link-without-entry": Kind("names of inodes that the directory does not have", _BACKUP),
    "entry-without-hash": Kind(
        "names that are listed, but cannot be opened, or lead elsewhere then", _BACKUP
    ),
    "entry-without-index": Kind(
        "names that can be opened, but are not listed, or as something else", _BACKUP
    ),
    "entry-type": Kind("names of another type than their inode", _BACKUP),
    # copies
    "copy-damaged": Kind("copies of tree blocks that do not pass the checks", _SCRUB),
    "parity-differs": Kind("tree blocks that do not agree with the parity of their row", _SCRUB),
    # chunks
    "chunk-alone": Kind("chunks without a block group", _BACKUP),
    "block-group-alone": Kind("block groups without a chunk", _BACKUP),
    "block-group-differs": Kind("block groups that are not like their chunk", _BACKUP),
    "block-group-overlaps": Kind("block groups that overlap the one before", _ALLOCATION),
    "system-chunk": Kind(
        "system chunks that the superblock does not have as the chunk tree has them",
        "the next mount may not find the chunk tree; make a backup while files can be read",
    ),
    "stripe-device": Kind("stripes of chunks on a device that has no item", _RESCUE),
    "stripe-alone": Kind("stripes of chunks without a device extent", _ALLOCATION),
    "device-extent-alone": Kind("device extents that belong to no chunk", _BACKUP),
    "device-extent-differs": Kind(
        "device extents that are not like the stripe of their chunk", _ALLOCATION
    ),
    "device-extent-overlaps": Kind("device extents that overlap the one before", _ALLOCATION),
    "device-extent-outside": Kind("device extents that are not all on their device", _BACKUP),
    "device-used": Kind("devices whose allocated bytes are not the sum of their extents", _DEVICE),
    # extents
    "extent-outside": Kind("extents that do not lie in one block group", _BACKUP),
    "extent-overlaps": Kind("extents that overlap the one before", _ALLOCATION),
    "extent-type": Kind("extents in a block group for something else", _BACKUP),
    "extent-references": Kind("extents whose number of references is wrong", _BACKUP),
    "reference-alone": Kind("references to an extent that does not exist", _BACKUP),
    "extent-missing": Kind(
        "data or tree blocks in use without an extent: they could be overwritten", _ALLOCATION
    ),
    "backref-missing": Kind("uses of an extent that it has no back reference for", _BACKUP),
    "backref-alone": Kind("back references that nothing stands behind", _BACKUP),
    "backref-count": Kind("back references that count another number of uses", _BACKUP),
    "block-without-extent": Kind(
        "tree blocks in use that are no extents: they could be overwritten", _ALLOCATION
    ),
    "extent-without-block": Kind("extents for tree blocks that are in no tree", _BACKUP),
    "block-shared": Kind(
        "extents for tree blocks that cannot be shared, but have the flag FULL_BACKREF", _BACKUP
    ),
    "block-differs": Kind("extents that are not like their tree block", _BACKUP),
    "block-group-used": Kind(
        "block groups whose used bytes are not the sum of their extents", _BACKUP
    ),
    "bytes-used": Kind(
        "used bytes of the superblock that are not the sum of the block groups", _BACKUP
    ),
    # checksums
    "checksums-overlap": Kind("checksums of data for which there are others already", _BACKUP),
    "checksum-alone": Kind(
        "checksums of what is no data: they can make data look damaged that is written there",
        _BACKUP,
    ),
    # free space
    "free-space-differs": Kind(
        "block groups whose free space is not what extents leave free", _FREE_SPACE
    ),
    "free-space-count": Kind("block groups with a wrong number of free ranges", _FREE_SPACE),
    "free-space-form": Kind(
        "block groups whose free space is not stored in the way that the tree says", _FREE_SPACE
    ),
    "free-space-overlaps": Kind("free space that is told of twice", _FREE_SPACE),
    "free-space-alone": Kind("free space outside of all block groups", _FREE_SPACE),
    # subvolumes
    "subvolume-missing": Kind("subvolumes that are named, but have no root item", _LOST_SUBVOLUME),
    "subvolume-repeated": Kind("subvolumes that have several root items", _BACKUP),
    "subvolume-refs": Kind("subvolumes that are neither in use nor deleted", _BACKUP),
    "subvolume-forgotten": Kind(
        "deleted subvolumes without an orphan item: their space never becomes free",
        "nothing is in danger; copy all to a new filesystem if the space is needed",
    ),
    "subvolume-deleted": Kind("deleted subvolumes that still are in a directory", _SUBVOLUME),
    "subvolume-generation": Kind(
        "subvolumes that say that they changed in a transaction that has not been yet", _BACKUP
    ),
    "subvolume-top": Kind("subvolumes without a sound top directory", _RESTORE),
    "subvolume-reference-alone": Kind(
        "subvolumes that only one of ROOT_REF and ROOT_BACKREF tells the place of", _SUBVOLUME
    ),
    "subvolume-reference-differs": Kind(
        "subvolumes whose ROOT_REF and ROOT_BACKREF name different places", _SUBVOLUME
    ),
    "subvolume-places": Kind("subvolumes that are in places where they cannot be", _SUBVOLUME),
    "subvolume-unreachable": Kind("subvolumes that no path leads to", _RESTORE),
    "subvolume-directory": Kind("subvolumes in a directory that does not exist", _RESTORE),
    "subvolume-entry-missing": Kind("subvolumes whose directory lacks their name", _SUBVOLUME),
    "subvolume-entry-differs": Kind(
        "subvolumes by whose name their directory points to something else", _SUBVOLUME
    ),
    "subvolume-entry-alone": Kind(
        "names in directories for subvolumes that are not there", _EMPTY_DIRECTORY
    ),
    "subvolume-default": Kind(
        "a default subvolume that does not exist",
        "mount -o subvolid=5, and choose another one by btrfs subvolume set-default",
    ),
    "uuid-missing": Kind("UUIDs of subvolumes that the UUID tree does not know", _UUIDS),
    "uuid-alone": Kind("UUIDs in the UUID tree that their subvolume does not have", _UUIDS),
    "uuid-repeated": Kind(
        "subvolumes of the same UUID",
        "do not send them: btrfs receive could take one for the other; send a snapshot instead",
    ),
    # log trees
    "log-alone": Kind(
        "log trees of subvolumes that do not exist",
        "the next mount passes over them; what was synced is gone with the subvolume",
        True,
    ),
    "log-outside": Kind("log trees that use what is not in a block group of their kind", _LOG),
    "log-in-use": Kind("log trees that use what something else has already", _LOG),
    "log-overlaps": Kind("log trees that use the same space twice", _LOG),
    "log-checksum": Kind("data in log trees without checksums: it cannot be read", _LOG),
    "log-directory": Kind("log trees with impossible ranges of names", _LOG),
    # quotas
    "quota-number": Kind("quota groups that are not counted right", _RESCAN, True),
    "quota-group-missing": Kind("subvolumes without a quota group", _RESCAN, True),
    "quota-group-alone": Kind(
        "quota groups of subvolumes that do not exist",
        "btrfs qgroup destroy removes one, btrfs qgroup clear-stale all of them",
        True,
    ),
    "quota-group-half": Kind("quota groups with only one of numbers and limits", _QUOTA, True),
    "quota-relation": Kind("members of quota groups that cannot be", _QUOTA, True),
    # data
    "data-damaged": Kind("data that does not agree with its checksum", _BAD_FILE),
    "data-unreadable": Kind("data that cannot be read", _BAD_FILE),
}
"""All kinds of findings, by their names."""
