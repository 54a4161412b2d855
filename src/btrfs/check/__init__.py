"""Check a filesystem that is not mounted, and report what is wrong with it. Nothing is written.

    with btrfs.FileSystem('disk.img', source='unmounted', on_error='skip') as fs:
        for checked in btrfs.check.check(fs):
            print(checked.name, checked.summary)
            for finding in checked.findings:
                print(finding)

There are ten checks, a module for each or two: superblocks, trees, copies, extents, free space,
chunks, subvolumes, log trees, quotas, data. :mod:`btrfs.check.run` does one after the other. They
go on where something cannot be read, and leave out what only follows from that.
:data:`btrfs.check.KINDS` explains each kind of finding.
"""

from btrfs.check.kinds import KINDS as KINDS, Kind as Kind
from btrfs.check.report import (
    CHECKS as CHECKS,
    Checked as Checked,
    Finding as Finding,
    Progress as Progress,
    not_checked as not_checked,
)
from btrfs.check.run import check as check

__all__ = ["KINDS", "Checked", "Finding", "Kind", "Progress", "check"]
