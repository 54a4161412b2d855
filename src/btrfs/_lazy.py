"""Packages whose modules are imported when they are first used (PEP 562).

So ``btrfs.ownership.paths`` can be written after ``import btrfs``, which costs next to nothing. A
package lists its modules for type checkers, and for nothing else::

    TYPE_CHECKING = False
    if TYPE_CHECKING:
        from btrfs.ownership import paths as paths
    else:
        __getattr__, __dir__ = lazy_names(__name__, __path__)

Type checkers must not see that ``__getattr__``: they would take any misspelt name for an attribute.
"""

import importlib
import sys

# Of typing, a type checker needs only the name, and the import would take longer than all the rest.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

_ALWAYS = {"__doc__", "__file__", "__name__", "__path__"}


def lazy_names(
    package: str,
    path: "Iterable[str]",
    homes: "Mapping[str, str] | None" = None,
    others: "Iterable[str]" = (),
) -> "tuple[Callable[[str], Any], Callable[[], list[str]]]":
    """Return ``__getattr__`` and ``__dir__`` for a package.

    Args:
        package: ``__name__`` of the package.
        path: Its ``__path__``.
        homes: Names that it offers besides its modules, and the modules that define them.
        others: Names that it has defined itself.
    """
    homes = homes or {}

    def getattr_(name: str) -> "Any":
        if name in homes:
            value = getattr(importlib.import_module(homes[name]), name)
        elif name == "__all__":
            value = [public for public in dir_() if not public.startswith("_")]
        elif not name.startswith("_") and name in _module_names(path):
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def dir_() -> list[str]:
        return sorted({*homes, *_module_names(path), *others, *_ALWAYS})

    return getattr_, dir_


def _module_names(path: "Iterable[str]") -> list[str]:
    """Return the names of the public modules in a package, given its ``__path__``."""
    import pkgutil

    names = [module.name for module in pkgutil.iter_modules(path)]
    return [name for name in names if not name.startswith("_")]
