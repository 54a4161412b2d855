"""Where a program writes to: a file, which is replaced as a whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from typing import IO

STDOUT = "-"
"""The name that stands for standard output."""


def check_place(name: str | PathLike[str]) -> None:
    """Find out before the work whether a file of this name, or one in this folder, can be written.

    Raises:
        OSError: There is no folder for the file, or it must not be written to.
    """
    target = os.path.realpath(name)
    folder = os.path.dirname(target)
    if os.path.isdir(target) or _is_special(target):
        written = target
    elif os.path.isdir(folder):
        written = folder
    else:
        error = errno.ENOTDIR if os.path.exists(folder) else errno.ENOENT
        raise OSError(error, os.strerror(error), folder)
    if not os.access(written, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(name))


@contextmanager
def replaced(name: str | PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file beside the one of this name, whose place it takes when all went well.

    Raises:
        OSError: It cannot be written; what was there before is as it was.
    """
    target = os.path.realpath(name)
    if _is_special(target):
        with open(target, "wb") as file:
            yield file
        return
    stem, suffix = os.path.splitext(os.path.basename(target))
    beside = os.path.join(os.path.dirname(target), f".{stem}.{os.urandom(4).hex()}{suffix}")
    try:
        with open(beside, "xb") as file:
            if os.path.exists(target):
                os.chmod(beside, stat.S_IMODE(os.stat(target).st_mode))
            yield file
        os.replace(beside, target)
    except BaseException as error:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        if isinstance(error, OSError):
            # The name of the temporary file means nothing to the caller.
            error.filename = os.fspath(name)
        raise


def _is_special(path: str) -> bool:
    """Whether this is a device or a pipe, which is written to and not replaced."""
    return os.path.exists(path) and not os.path.isfile(path)
