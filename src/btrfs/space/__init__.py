"""How space is given out: the kernel's allocator, what is used, what can still be written."""

from btrfs._lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from btrfs.space import (
        advice as advice,
        allocator as allocator,
        counters as counters,
        devices as devices,
        equal_chunks as equal_chunks,
        estimates as estimates,
        filling as filling,
        mkfs as mkfs,
        operations as operations,
        overview as overview,
        profile_rules as profile_rules,
        usage as usage,
    )
else:
    __getattr__, __dir__ = lazy_names(__name__, __path__)
