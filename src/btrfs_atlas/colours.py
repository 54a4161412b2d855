"""The option --colour of the programs that draw."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pkgutil import iter_modules


def colour_names() -> list[str]:
    """Return the names of the colourings, which are those of their modules, without importing them.

    Importing them would take longer than all the rest of a help text.
    """
    package = find_spec("heatmap")
    folders = [] if package is None else package.submodule_search_locations or []
    paths = [os.path.join(folder, "colourings") for folder in folders]
    return sorted(module.name for module in iter_modules(paths))
