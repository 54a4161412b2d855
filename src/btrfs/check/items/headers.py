"""Headers of tree blocks: what the kernel asks of them besides what a reader needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["are_unwritten"]

_FLAG_WRITTEN = 1 << 0


def are_unwritten(headers: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which blocks lack the flag WRITTEN: the kernel does not read such a block.

    Args:
        headers: Headers of blocks (struct btrfs_header).
    """
    return np.asarray(headers["flags"] & np.uint64(_FLAG_WRITTEN) == 0)
