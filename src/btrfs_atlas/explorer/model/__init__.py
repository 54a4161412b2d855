"""What the map shows: address lines, a snapshot of the filesystem, extents in memory."""
