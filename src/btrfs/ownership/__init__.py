"""Who uses what: subvolumes, paths, back references, subvolumes that are being deleted."""

from btrfs._lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from btrfs.ownership import (
        backref_walk as backref_walk,
        backrefs as backrefs,
        extent_refs as extent_refs,
        orphans as orphans,
        paths as paths,
        subvolumes as subvolumes,
    )
else:
    __getattr__, __dir__ = lazy_names(__name__, __path__)
