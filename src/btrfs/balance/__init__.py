"""Balances: planned, simulated and run."""

from btrfs._lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from btrfs.balance import (
        estimate as estimate,
        planning as planning,
        running as running,
        simulation as simulation,
    )
else:
    __getattr__, __dir__ = lazy_names(__name__, __path__)
