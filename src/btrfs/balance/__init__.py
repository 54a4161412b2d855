"""Balances: planned, simulated and run."""

from btrfs.lazy import lazy_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from btrfs.balance import (
        planning as planning,
        simulation as simulation,
    )

__getattr__, __dir__ = lazy_modules(__name__, __path__)
