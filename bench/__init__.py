"""Measure btrfs-atlas side by side with the programs that came before it."""
