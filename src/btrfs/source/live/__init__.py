"""A mounted filesystem, read from its devices as of its last commit.

The kernel writes a tree block to a free place, never over one of the last commit. When all blocks
of a commit are on disk, it writes the superblocks, and only after that it lets the places be used
again that the commit has freed. So what a superblock leads to is whole as long as there is no newer
one. A block that is not as it must be is one of two things: overwritten, if there is a newer
superblock by then, or damaged, if there is none.

:mod:`devices` reads past the page cache, which knows nothing of what the kernel writes to a mounted
device. :mod:`volume` reads many blocks at once, and tells whether there is a newer superblock.
:mod:`commit` finds devices and chunks of the last commit. :mod:`source` answers questions, and goes
on from a newer commit where it has to.
"""
