"""`python -m btrfs_atlas` is the program btrfs-atlas."""

import sys

from btrfs_atlas.entry import main

sys.exit(main())
