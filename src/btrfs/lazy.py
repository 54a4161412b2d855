"""Packages whose modules are imported when they are first used (PEP 562).

So ``btrfs.ownership.paths`` can be written after ``import btrfs``, which costs next to nothing.
"""

import importlib
import pkgutil

# Of typing, a type checker needs only the name; see btrfs/__init__.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType


def module_names(path: "Iterable[str]") -> list[str]:
    """Return the names of the modules in a package, given its ``__path__``."""
    return [module.name for module in pkgutil.iter_modules(path)]


def lazy_modules(
    package: str, path: "Iterable[str]"
) -> "tuple[Callable[[str], ModuleType], Callable[[], list[str]]]":
    """Return ``__getattr__`` and ``__dir__`` for a package that is nothing but its modules.

    Args:
        package: ``__name__`` of the package.
        path: Its ``__path__``.
    """

    def getattr_(name: str) -> "ModuleType":
        if name.startswith("__") or name not in module_names(path):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return importlib.import_module(f"{package}.{name}")

    return getattr_, lambda: module_names(path)
