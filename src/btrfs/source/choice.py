"""Which source answers for the paths that a user gives: the running kernel, or the devices."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Literal, get_args

from btrfs.errors import BtrfsError, NotBtrfsError
from btrfs.source.base import OnError, ReadOptions, Source
from btrfs.source.mounts import mount_of_device

__all__ = ["SourceChoice", "Target", "open_source"]

Target = str | bytes | os.PathLike[str]
SourceChoice = Literal["auto", "mounted", "unmounted", "devices"]


def open_source(
    path: Target | Sequence[Target], choice: SourceChoice, options: ReadOptions
) -> Source:
    """Open what a path or several stand for; see :class:`btrfs.filesystem.FileSystem`."""
    _check_options(options)
    return _open_source(_paths(path), choice, options)


def _paths(path: Target | Sequence[Target]) -> list[str]:
    """Return the names of all files that are to be opened together."""
    targets = [path] if isinstance(path, str | bytes | os.PathLike) else path
    try:
        paths = [os.fsdecode(target) for target in targets]
    except TypeError:
        raise TypeError(
            f"path must be a str, bytes or os.PathLike object, or a list of them, not {path!r}"
        ) from None
    if not paths:
        raise ValueError("nothing to open")
    return paths


def _check_options(options: ReadOptions) -> None:
    if options.on_error not in get_args(OnError):
        raise ValueError(f"on_error is {options.on_error!r}, but must be 'raise' or 'skip'")
    if options.superblock not in (None, 0, 1, 2):
        raise ValueError(f"superblock is {options.superblock!r}, but must be 0, 1 or 2")
    if options.backup_root not in (None, 0, 1, 2, 3):
        raise ValueError(f"backup_root is {options.backup_root!r}, but must be 0, 1, 2 or 3")


def _open_source(paths: list[str], choice: SourceChoice, options: ReadOptions) -> Source:
    """Open what checked paths stand for."""
    if choice == "auto":
        mount = _mount_of(paths)
        is_elsewhere = len(paths) == 1 and not _is_device_or_image(paths[0])
        choice = "mounted" if mount is not None or is_elsewhere else "unmounted"
        if is_elsewhere and os.path.isfile(paths[0]):
            return _open_file(paths[0], options)
    if choice == "unmounted":
        from btrfs.source.opening import open_unmounted

        return open_unmounted(paths, options)
    if choice not in get_args(SourceChoice):
        *others, last = map(repr, get_args(SourceChoice))
        raise ValueError(f"source is {choice!r}, but must be {', '.join(others)} or {last}")
    if options.superblock is not None or options.backup_root is not None:
        raise BtrfsError(
            f"{paths[0]} is mounted, and only its current state is shown",
            hint="unmount it, or read its devices with --source unmounted",
        )
    from btrfs.source.kernel import KernelSource

    kernel = KernelSource(_mount_of(paths) or paths[0])
    if choice == "mounted":
        return kernel
    from btrfs.source.live.source import open_live

    return open_live(kernel, options)


def _open_file(path: str, options: ReadOptions) -> Source:
    """Open the filesystem that a file without a btrfs in it lies on."""
    try:
        return _open_source([path], "mounted", options)
    except NotBtrfsError as error:
        raise NotBtrfsError(
            f"{path} has no superblock of a btrfs, and is not on a btrfs filesystem",
            hint=error.hint,
        ) from None


def _mount_of(paths: list[str]) -> str | None:
    """Return where the filesystem is mounted if the paths are all block devices of it."""
    if not all(stat.S_ISBLK(os.stat(path).st_mode) for path in paths):
        return None
    mounts = {mount_of_device(path) for path in paths}
    return mounts.pop() if len(mounts) == 1 else None


def _is_device_or_image(path: str) -> bool:
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        from btrfs.source.opening import holds_btrfs

        return holds_btrfs(path)
    return stat.S_ISBLK(mode)
