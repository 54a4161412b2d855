"""Skip a test whose surroundings are missing; in continuous integration, fail it.

A test that is skipped on every machine tests nothing: where the environment says CI=true, what is
missing is an error.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from tests.lab.commands import missing
from tests.lab.loopfs import PROGRAMS, is_root

UNPRIVILEGED = ("setpriv", "--bounding-set=-all")
"""Runs a program without what root may do beyond an ordinary user."""


def unavailable(reason: str) -> NoReturn:
    """Skip the running test for this reason, or fail it where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"not to be skipped where CI=true: {reason}", pytrace=False)
    pytest.skip(reason)


def require_root() -> None:
    """Need the right to attach loop devices and to mount, and the programs for it."""
    if not is_root():
        unavailable("needs root, to attach loop devices and to mount")
    require_programs(*PROGRAMS)


def require_programs(*programs: str) -> None:
    """Need these programs."""
    absent = missing(programs)
    if absent:
        unavailable(f"needs {', '.join(absent)}")


def require_mkfs() -> None:
    """Need mkfs.btrfs for files. It opens every mounted loop device first, which takes root."""
    require_programs("mkfs.btrfs")
    if not is_root() and "/dev/loop" in Path("/proc/mounts").read_text():
        unavailable("needs root for mkfs.btrfs, as loop devices are mounted")
