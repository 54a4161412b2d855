"""The colourings, one in each module of this folder: adding a module adds a colouring.

A module is named as its colouring is, and offers it as ``COLOURING``. A script that has a colouring
of its own adds it by :func:`register`.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache, partial
from typing import TYPE_CHECKING

from heatmap.colouring import Colouring
from heatmap.colours import ColourContext
from heatmap.errors import HeatmapError
from heatmap.extents.trees import Trees, all_trees, tree_name

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem

__all__ = ["colour_context", "colouring", "colourings", "register"]

_registered: dict[str, Colouring] = {}


def colourings() -> list[Colouring]:
    """Return all colourings, in the order of their ranks."""
    return sorted({**_own(), **_registered}.values(), key=lambda one: (one.rank, one.name))


def colouring(name: str) -> Colouring:
    """Return a colouring.

    Raises:
        HeatmapError: There is none of this name. It is a ValueError.
    """
    found = _registered.get(name) or _own().get(name)
    if found is None:
        known = ", ".join(one.name for one in colourings())
        raise HeatmapError(f"unknown colour {name!r}", hint=f"there are {known}")
    return found


def colour_context(fs: FileSystem) -> ColourContext:
    """Return what the colours of a picture of a filesystem depend on."""
    return ColourContext(
        generation=fs.fs_info().generation,
        trees=Trees(all_trees(fs), fixed=True),
        tree_name=partial(tree_name, fs),
    )


def register(added: Colouring) -> None:
    """Add a colouring, in place of one of the same name."""
    _registered[added.name] = added


@cache
def _own() -> dict[str, Colouring]:
    """Return the colourings of this folder by their names."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {module.COLOURING.name: module.COLOURING for module in modules}
