"""The tests of btrfs-atlas."""
