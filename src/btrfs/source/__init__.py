"""Where metadata comes from: the kernel that has it mounted, or the devices themselves.

:mod:`base` says what every source can do, :mod:`blocks` what those can do that see tree blocks.
:mod:`kernel` asks about what is mounted; :mod:`disk` reads devices and images, :mod:`live` the
devices of what is mounted, :mod:`dump` what btrfs-image wrote. :mod:`choice` and :mod:`opening`
find the right one for some paths. :mod:`lookup` has the look-ups that work on all of them,
:mod:`damage` remembers what could not be read.
"""
