"""What the bytes of a btrfs mean: numbers, structs, keys, items, profiles of chunks."""
