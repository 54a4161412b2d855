"""Who uses what: subvolumes, paths, back references, subvolumes that are being deleted."""

from btrfs.lazy import lazy_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from btrfs.ownership import (
        backrefs as backrefs,
        orphans as orphans,
        paths as paths,
        subvolumes as subvolumes,
    )

__getattr__, __dir__ = lazy_modules(__name__, __path__)
