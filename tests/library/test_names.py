"""What `import btrfs` offers: the same names to people, to star imports and to type checkers."""

from __future__ import annotations

import ast
import importlib
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import btrfs
from tests import support

ROOT = Path(btrfs.__file__).parent
LAZY = ["btrfs", "btrfs.balance", "btrfs.ownership", "btrfs.query", "btrfs.space"]


def names_for_type_checkers(package: str) -> set[str]:
    """Return the public names that the source of a package imports or sets, run or not."""
    file = importlib.import_module(package).__file__
    assert file is not None
    names = set()
    for node in ast.walk(ast.parse(Path(file).read_text())):
        if isinstance(node, ast.ImportFrom):
            # `import X as X` says that X is public, as a star says of all that a module has.
            names |= {alias.name for alias in node.names if alias.asname == alias.name}
            if node.names[0].name == "*":
                assert node.module is not None
                names |= names_for_type_checkers(node.module)
    return names


def public(names: list[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("package", LAZY)
def test_type_checkers_and_completion_see_the_same(package: str) -> None:
    seen = public(dir(importlib.import_module(package)))
    assert seen == names_for_type_checkers(package)
    for name in seen:
        assert getattr(importlib.import_module(package), name) is not None


STAR = """
from btrfs import *
assert FileSystem is filesystem.FileSystem
assert BLOCK_GROUP_RAID1C4 == ctree.BLOCK_GROUP_RAID1C4
print(*(name for name in globals() if not name.startswith("_")))
"""


def test_star_import() -> None:
    imported = support.run(sys.executable, "-c", STAR).split()
    assert set(imported) == public(dir(btrfs))
    assert {"FileSystem", "BtrfsError", "ctree", "utils", "info", "BLOCK_GROUP_DATA"} <= {*imported}


def test_what_is_not_offered() -> None:
    with pytest.raises(AttributeError, match="module 'btrfs' has no attribute 'filesistem'"):
        _ = btrfs.filesistem  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        exec("from btrfs.space import nothing")


def test_version() -> None:
    """It is written once, so that it is right in a source checkout that is not installed, too."""
    assert btrfs.__version__ == metadata.version("btrfs-atlas")
    assert "__version__" in dir(btrfs)
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    copy = f"import sys; sys.path.insert(0, {str(ROOT.parent)!r}); import btrfs"
    told = support.run(sys.executable, "-I", "-S", "-c", f"{copy}; print(btrfs.__version__)")
    assert told.strip() == btrfs.__version__
