"""Dumps made by btrfs-image, as a store of tree blocks."""
