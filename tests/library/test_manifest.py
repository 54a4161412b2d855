"""Everything that python-btrfs offers is here: names, signatures, values.

What it offers was taken down from python-btrfs 15 itself, into tests/data/python-btrfs-15-api.json.
"""

from __future__ import annotations

import importlib
import inspect
import json
import platform
import sys
from typing import Any

import pytest

from tests import support

MANIFEST: dict[str, Any] = json.loads((support.DATA / "python-btrfs-15-api.json").read_text())

MORE_PARAMETERS = {
    "FileSystem.__init__": "source: the mounted filesystem or its devices",
    "BalanceError.__init__": "hint: what to do about it",
}
"""Where we take more than python-btrfs, besides ``data`` and ``pos`` of items, and what for."""

RENAMED_PARAMETERS = {
    ("OrphanItem.__init__", "_"): "data",
}
"""Names that python-btrfs gave to what it ignores."""


def entries(kind: str) -> list[Any]:
    """Return the entries of all modules of one kind as parameters of a test."""
    return [
        pytest.param(module, name, expected, id=f"{module}.{name}")
        for module, offered in MANIFEST.items()
        for name, expected in offered[kind].items()
    ]


def found(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def parameters(signature: str) -> list[tuple[str, str, Any]]:
    """Return name, kind and default of the parameters in a signature such as '(fd, flags=0)'."""
    function: Any = eval(f"lambda {signature.removeprefix('(').removesuffix(')')}: None")
    return described(function)


def described(function: Any) -> list[tuple[str, str, Any]]:
    return [
        (parameter.name, str(parameter.kind), parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize(("module", "name", "value"), entries("constants"))
def test_constant(module: str, name: str, value: Any) -> None:
    ours = found(module, name)
    assert ours == (platform.machine() if name == "arch" else value)
    assert type(ours) is type(value)


@pytest.mark.parametrize(("module", "name", "signature"), entries("functions"))
def test_function(module: str, name: str, signature: str) -> None:
    assert described(found(module, name)) == parameters(signature)


@pytest.mark.parametrize(("module", "name", "expected"), entries("classes"))
def test_class(module: str, name: str, expected: dict[str, Any]) -> None:
    cls = found(module, name)
    for base in expected["bases"]:
        if base == "MutableSequence":
            # Its elements cannot be changed: insert() raises NotImplementedError there, and here.
            assert hasattr(cls, "insert")
        else:
            assert base in {ancestor.__name__ for ancestor in cls.__mro__}
    if "fields" in expected:
        assert list(cls._fields) == expected["fields"]
    for method, signature in expected["methods"].items():
        assert_same_parameters(cls, method, signature)
    assert set(expected["properties"]) <= set(dir(cls))


def assert_same_parameters(cls: type, method: str, signature: str) -> None:
    where = f"{cls.__name__}.{method}"
    is_static = signature.startswith("static ")
    assert is_static == isinstance(inspect.getattr_static(cls, method), staticmethod)
    expected = [
        (RENAMED_PARAMETERS.get((where, name), name), kind, default)
        for name, kind, default in parameters(signature.removeprefix("static "))
    ]
    ours = described(getattr(cls, method))
    same = [(name, kind) for name, kind, _ in expected]
    assert [(name, kind) for name, kind, _ in ours][: len(same)] == same, where
    more = ours[len(same) :]
    if where not in MORE_PARAMETERS:
        assert {name for name, _, _ in more} <= {"data", "pos"}, where
    for parameter, wanted in zip(ours, expected, strict=False):
        # What may be left out there may be left out here.
        if wanted[2] is not inspect.Parameter.empty:
            assert parameter[2] == wanted[2], where
    assert all(default is not inspect.Parameter.empty for _, _, default in more), where


IOCTLS = """
import os, sys
os.uname = lambda: os.uname_result(("Linux", "here", "6.18", "#1", sys.argv[1]))
from btrfs import ioctl
print(*(getattr(ioctl, name) for name in sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("machine", "size_bits", "directions"),
    [
        ("x86_64", 14, (0, 2, 1)),
        ("aarch64", 14, (0, 2, 1)),
        ("s390x", 14, (0, 2, 1)),
        ("parisc64", 14, (0, 1, 2)),
        ("ppc64le", 13, (1, 2, 4)),
        ("sparc64", 13, (1, 2, 4)),
        ("mips64", 13, (1, 2, 4)),
        ("alpha", 13, (1, 2, 4)),
    ],
)
def test_ioctl_numbers_of_other_architectures(
    machine: str, size_bits: int, directions: tuple[int, int, int]
) -> None:
    """As asm/ioctl.h of each architecture puts them together."""
    names = [name for name in MANIFEST["btrfs.ioctl"]["constants"] if name.startswith("IOC_")]
    printed = support.run(sys.executable, "-c", IOCTLS, machine, *names)
    none, read, write = directions
    kinds = {0: none, 1: write, 2: read, 3: read | write}
    expected = {}
    for name in names:
        here = MANIFEST["btrfs.ioctl"]["constants"][name]
        kind, size, rest = here >> 30, here >> 16 & 0x3FFF, here & 0xFFFF
        expected[name] = kinds[kind] << (16 + size_bits) | size << 16 | rest
    assert dict(zip(names, map(int, printed.split()), strict=True)) == expected
