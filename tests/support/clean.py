"""Two judges of a sound filesystem: our check, and `btrfs check`. Neither may find anything."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from btrfs import FileSystem, check
from btrfs.ctree import RootItem
from btrfs.ondisk.constants import ROOT_TREE_OBJECTID, TREE_RELOC_OBJECTID
from tests.lab.loopfs import attached_images

USUAL = (
    r"Opening filesystem to check\.\.\.",
    r"Checking filesystem on .*",
    r"UUID: .*",
    r"\[\d/\d\] checking .*",
    r"found \d+ bytes used, no error found",
    r"total csum bytes: \d+",
    r"total tree bytes: \d+",
    r"total fs tree bytes: \d+",
    r"total extent tree bytes: \d+",
    r"btree space waste bytes: \d+",
    r"file data blocks allocated: \d+",
    r"\s*referenced \d+",
    # It looks at all block devices for members of the filesystem. Other tests detach theirs.
    r"ERROR: cannot scan /dev/loop\d+: .*",
)
"""What `btrfs check` prints about a sound filesystem; whatever else it prints is a complaint."""

UNKNOWN_FEATURE = (
    r"couldn't open because of unsupported option features \(\d+\)\.",
    r"ERROR: cannot open file system",
    r"exit code 1",
)
"""What it prints instead if it is older than a feature of the filesystem."""

QUOTAS_TO_BE_COUNTED = (
    r"Rescan hasn't been initialzied, a difference in qgroup accounting is expected",
    r"Counts for qgroup id: \d+/\d+ are different",
    r"(our|disk|diff):\s+(referenced|exclusive) \d+",
)
"""What it prints, and then exits with 0, where the kernel noted that quotas must be counted."""

QUOTAS_ARE_COUNTED = ("Qgroup rescan is running, qgroups will not be printed.",)
"""What it prints, and then exits with 0, where the kernel was counting."""

SPACE_CACHE = (
    r"block group \d+ has wrong amount of free space, free space cache has \d+ block group has \d+",
    r"failed to load free space cache for block group \d+",
)
"""What it prints, and then exits with 0, about the older free space cache after a crash.

The kernel meets the same now and then, also after an unmount. It compares the sums as `btrfs check`
does, leaves out a cache that is wrong, and builds another one.
"""

HALF_REMOVED = (
    r"Counts for qgroup id: \d+/\d+ are different",
    r"(our|disk|diff):\s+(referenced|exclusive) -?\d+",
    r"found \d+ bytes used, error\(s\) found",
    r"exit code 1",
)
"""What it prints where quotas are on, and a subvolume is removed in part.

The kernel no longer counts what is removed. The program counts the whole tree, as if there were no
drop_progress in the root item.
"""

HALF_RELOCATED = (
    r"root 18446744073709551608 root dir 256 not found",
    r"ref mismatch on \[\d+ \d+\] extent item \d+, found \d+",
    r"(tree|data) extent\[\d+, \d+\] .*",
    r"incorrect global backref count on \d+ found \d+ wanted \d+",
    r"backpointer mismatch on \[\d+ \d+\]",
    r"owner ref check failed \[\d+ \d+\]",
    r"ERROR: errors found in extent allocation tree or chunk allocation",
    r"found \d+ bytes used, error\(s\) found",
    r"exit code 1",
)
"""What it prints where trees of a relocation (TREE_RELOC) are half merged into the others.

It does not look into all of them. The next mount goes on with the relocation, and then there is
nothing to complain about.
"""


def findings(images: Sequence[Path], *, data: bool = True) -> list[str]:
    """Return what our check finds in unmounted images, one text for each finding."""
    with FileSystem(list(images), source="unmounted", on_error="skip") as fs:
        return [
            f"{checked.name}: {finding.kind}: {finding.message}"
            for checked in check.check(fs, all_copies=True, data=data)
            for finding in checked.findings
        ]


def complaints(images: Sequence[Path]) -> list[str]:
    """Return what `btrfs check` complains about in unmounted images; it writes nothing."""
    with contextlib.ExitStack() as stack:
        # It finds the other devices of a filesystem among block devices only.
        several = len(images) > 1
        target = stack.enter_context(attached_images(images))[0] if several else images[0]
        done = subprocess.run(
            ["btrfs", "check", "--readonly", target], capture_output=True, text=True, check=False
        )
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line]
    usual = re.compile("|".join(USUAL))
    unusual = [line for line in lines if not usual.fullmatch(line)]
    return unusual + ([f"exit code {done.returncode}"] if done.returncode else [])


def assert_clean(
    images: Sequence[Path],
    *,
    quirks: Sequence[str] = (),
    known: Sequence[str] = (),
    data: bool = True,
) -> None:
    """See that neither our check nor `btrfs check` finds anything in unmounted images.

    Args:
        images: The images.
        quirks: What is in lines that `btrfs check` prints although this filesystem is sound, as
            patterns; whoever gives them says why.
        known: The same for what our check finds.
        data: Whether our check reads data.
    """
    # First: where both complain, the filesystem is to be looked at, not the check.
    complained = _without(complaints(images), [*quirks, *_interrupted(images)])
    assert not complained, "btrfs check: " + "\n".join(complained)
    found = _without(findings(images, data=data), known)
    assert not found, "\n".join(found)


def _interrupted(images: Sequence[Path]) -> tuple[str, ...]:
    """Return what `btrfs check` says about work that the kernel has yet to finish."""
    with FileSystem(list(images)) as fs:
        roots = [item for item in fs.search(ROOT_TREE_OBJECTID) if isinstance(item, RootItem)]
    removed = any(root.drop_progress.key for root in roots)
    relocated = any(root.objectid == TREE_RELOC_OBJECTID for root in roots)
    return (HALF_REMOVED if removed else ()) + (HALF_RELOCATED if relocated else ())


def _without(lines: list[str], patterns: Sequence[str]) -> list[str]:
    known = re.compile("|".join(patterns) or "(?!)")
    return [line for line in lines if not known.search(line)]
