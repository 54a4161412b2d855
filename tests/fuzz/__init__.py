"""Does anything crash on damaged filesystems? Good images are changed, and read in all ways."""
