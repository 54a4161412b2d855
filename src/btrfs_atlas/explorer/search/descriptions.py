"""What a search says about what it found, in English; all of it is composed here."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from btrfs.ondisk import constants
from btrfs.ondisk.text import counted, pretty_size, printable, space_flags_description
from btrfs_atlas.explorer.search.results import (
    AddressFacts,
    Facts,
    GroupFacts,
    InodeFacts,
    SubvolumeFacts,
)
from btrfs_atlas.explorer.search.step_reader import MAX_EXTENTS, MAX_SECONDS

if TYPE_CHECKING:
    from btrfs_atlas.explorer.search.file_extents import FileExtentSummary

__all__ = ["copies_description", "description", "shown", "title"]


def title(facts: Facts) -> str:
    """Return what was found, in a few words."""
    if isinstance(facts, InodeFacts):
        if facts.asked_path is not None:
            return f"/{printable(facts.asked_path)}"
        return f"inode {facts.place.inum} in subvolume {facts.place.tree}"
    if isinstance(facts, AddressFacts):
        if facts.extent is None:
            return f"free space at {facts.vaddr}"
        return f"extent at {facts.extent.vaddr}"
    if isinstance(facts, GroupFacts):
        return f"block group {facts.group.vaddr}"
    return f"subvolume {facts.tree}"


def description(facts: Facts) -> list[str]:
    """Return sentences about what was found."""
    if isinstance(facts, InodeFacts):
        return _inode(facts)
    if isinstance(facts, AddressFacts):
        return _address(facts)
    if isinstance(facts, GroupFacts):
        return _group(facts)
    return _subvolume(facts)


def copies_description(on_line: int) -> str:
    """Return a sentence about how many bytes all copies take on the devices."""
    return f"With its copies, it takes {_size(on_line)} on the devices."


def shown(text: str) -> str:
    """Return a text that may have bytes of names in it as text that can be shown."""
    return printable(text.encode(errors="backslashreplace"))


def _inode(facts: InodeFacts) -> list[str]:
    sentences = _what_and_where(facts)
    if facts.summary is not None:
        sentences += _file(facts.summary, facts.sectorsize)
    sentences += _loss(facts.lost)
    if facts.others:
        others = ", ".join(str(tree) for tree in facts.others)
        more = " and others" if facts.more_others else ""
        sentences.append(
            f"There is an inode of this number in subvolume {others}{more}, too:"
            f" say 'inode {facts.place.inum} in {facts.others[0]}' for that."
        )
    return sentences


def _what_and_where(facts: InodeFacts) -> list[str]:
    """Return what an inode is, and where."""
    tree, inum = facts.place
    where = f"Inode {inum} in subvolume {tree}"
    if facts.path is None:
        where += "; it is deleted, or its path cannot be read"
    else:
        where += f": /{printable(facts.path)}"
    inode = facts.inode
    if inode is None:
        return [where, "The inode itself could not be read."]
    what = _KINDS.get(stat.S_IFMT(inode.mode), "An inode of unknown type")
    if not stat.S_ISDIR(inode.mode):
        links = f", {counted(inode.nlink, 'name')}" if inode.nlink != 1 else ""
        return [f"{what}, {_size(inode.size)}{links}.", where]
    return [
        f"{what}: its names lie in the tree of the subvolume, it has no extents.",
        where,
        f"Say 'subvolume {tree}' to see all that the files of that use.",
    ]


_KINDS = {
    stat.S_IFREG: "A file",
    stat.S_IFDIR: "A directory",
    stat.S_IFLNK: "A symbolic link",
    stat.S_IFIFO: "A pipe",
    stat.S_IFSOCK: "A socket",
    stat.S_IFCHR: "A character device",
    stat.S_IFBLK: "A block device",
}


def _address(facts: AddressFacts) -> list[str]:
    group, extent = facts.group, facts.extent
    where = f"In block group {group.vaddr} ({space_flags_description(group.flags)})."
    if extent is None:
        return [f"No extent lies at {facts.vaddr}: it is free.", where, *_loss(facts.lost)]
    kind = "A tree block" if extent.is_tree_block else "Data"
    return [
        f"{kind}, {_size(extent.length)}, from {extent.vaddr} to {extent.vaddr + extent.length}.",
        (
            f"Made or last changed in generation {extent.generation},"
            f" {counted(extent.refs, 'reference')}."
        ),
        where,
    ]


def _group(facts: GroupFacts) -> list[str]:
    group = facts.group
    kind = space_flags_description(group.flags)
    sentences = [f"{kind}, {_size(group.length)}, {group.used_pct}% of it in use."]
    if facts.devids:
        names = ", ".join(str(devid) for devid in facts.devids)
        sentences.append(f"On device{'s' if len(facts.devids) > 1 else ''} {names}.")
    if facts.extents is None:
        sentences.append("Its extents cannot be read, or do not fit into the memory of the map.")
    return sentences


def _subvolume(facts: SubvolumeFacts) -> list[str]:
    root = facts.root
    how = " as a snapshot" if root.parent_uuid.int else ""
    read_only = ", read-only" if root.flags & constants.ROOT_SUBVOL_RDONLY else ""
    return [
        _where(facts),
        f"Made{how} in generation {root.otransid}, last changed in {root.generation}{read_only}.",
        *_files(facts.summary),
        "What its files hold lights up; the tree with their names does not.",
        *_loss(facts.lost),
    ]


def _where(facts: SubvolumeFacts) -> str:
    """Return where a subvolume is."""
    if facts.tree == constants.FS_TREE_OBJECTID:
        return "It is the top level of the filesystem."
    if facts.path is None:
        return "It is deleted, or its path cannot be read."
    return f"Its path is /{printable(facts.path)}"


# What files use.


def _file(summary: FileExtentSummary, sectorsize: int) -> list[str]:
    """Return how a file is cut up, and what of it lies in no extent."""
    sentences = _pieces(summary, "it")
    if summary.inline:
        sentences.append(f"Its content, {_size(summary.inline_bytes)}, lies inside a tree leaf.")
    holes = (summary.size - summary.filled) // sectorsize * sectorsize
    if holes > 0 and not (summary.inline or summary.truncated):
        sentences.append(f"{_size(holes)} of it are holes.")
    return sentences + _limit(summary)


def _files(summary: FileExtentSummary) -> list[str]:
    """Return how the files of a subvolume are cut up."""
    sentences = _pieces(summary, "its files")
    if summary.inline:
        verb = "lies" if summary.inline == 1 else "lie"
        sentences.append(
            f"{counted(summary.inline, 'small file')} {verb} inside tree leaves:"
            f" {_size(summary.inline_bytes)}."
        )
    return sentences + _limit(summary)


def _pieces(summary: FileExtentSummary, whose: str) -> list[str]:
    """Return how files are cut up, where the number of extents does not tell."""
    sentences = []
    extents = summary.extents[0].size
    if summary.items != extents:
        verb = "lies" if summary.items == 1 else "lie"
        sentences.append(
            f"{counted(summary.items, 'part')} of {whose} {verb} in {counted(extents, 'extent')}."
        )
    if summary.prealloc_bytes:
        size = _size(summary.prealloc_bytes)
        sentences.append(f"{size} of {whose} are allocated, but not written.")
    return sentences


def _limit(summary: FileExtentSummary) -> list[str]:
    """Return that the search came to no end, if it did not."""
    if not summary.truncated:
        return []
    limit = f"{counted(MAX_EXTENTS, 'extent')} or {MAX_SECONDS:.0f} seconds"
    return [f"There may be more: a search ends after {limit}."]


def _loss(reason: str | None) -> list[str]:
    """Return why not all could be read, if it could not."""
    return [] if reason is None else [f"Some of it could not be read: {shown(reason)}."]


def _size(size: int) -> str:
    return counted(size, "byte") if size < 1024 else pretty_size(size)
