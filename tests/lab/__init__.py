"""Real filesystems: how they are made (loopfs) and what is written to them (populate).

Tests, benchmarks and the script that makes the sample share this; it needs nothing but the standard
library, btrfs-progs and root.
"""
