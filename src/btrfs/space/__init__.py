"""How space is given out: the kernel's allocator, what is used, what can still be written."""

from btrfs.lazy import lazy_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from btrfs.space import (
        advice as advice,
        allocator as allocator,
        mkfs as mkfs,
        usage as usage,
    )

__getattr__, __dir__ = lazy_modules(__name__, __path__)
