"""The programs: maps of btrfs filesystems, mounted or not."""
