"""Ask a library questions, and take its answers apart down to numbers and texts.

This runs where `import btrfs` means python-btrfs, and here, where it means ours: see
tests.support.oracle. A question is a line of Python, as in tests.library.questions; `NAMESPACE` is
what it may use, and what a function adds to it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import random
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import btrfs
from btrfs import crc32c, ctree, free_space_tree, fs_usage, ioctl, utils, volumes
from btrfs.ctree import DiskKey, FileSystem, Key, classify
from btrfs.ioctl import SearchHeader

Answers = dict[str, Any]


def about_filesystem(path: str, methods: str, ioctls: str, trees: str) -> Answers:
    """Answer questions about a mounted filesystem.

    Args:
        path: Where it is mounted.
        methods: Questions about objects, which are printed as well.
        ioctls: Other questions.
        trees: Numbers of the trees of which all items are described.
    """
    with FileSystem(path) as fs:
        extents = list(fs.extents())
        groups = list(fs.block_groups())
        scope = {
            "fs": fs,
            "fd": fs.fd,
            "extents": extents,
            "groups": groups,
            "vaddrs": [extent.vaddr for extent in extents[:: len(extents) // 12]],
            "middle": groups[len(groups) // 2].vaddr,
            "generation": fs.top_level().generation,
        }
        answers = ask(methods, scope, whole)
        answers.update(ask(ioctls, scope, describe))
        for tree in map(int, trees.split()):
            answers[f"items of tree {tree}"] = [
                [describe(header), item(header, data)]
                for header, data in ioctl.search_v2(fs.fd, tree)
            ]
        return answers


def about_functions(functions: str, objects: str) -> Answers:
    """Answer questions that need no filesystem; objects are printed as well."""
    return {**ask(functions, {}, describe), **ask(objects, {}, whole)}


def about_balance(path: str, questions: str) -> Answers:
    """Answer questions about the balance of a mounted filesystem."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return ask(questions, {"fd": fd}, describe)
    finally:
        os.close(fd)


def about_no_real_items(types_of_keys: str) -> Answers:
    """Describe items of no real filesystem: every type of key, with meaningless bytes."""
    choose = random.Random(1)
    sizes = (0, 7, 8, 10, 16, 17, 18, 21, 24, 30, 40, 48, 53, 80, 98, 112, 160, 239, 439)
    keys = ((256, 7), (0, 1), ((1 << 64) - 5, 4096), ((1 << 64) - 4, 0))
    answer = []
    for type_, (objectid, offset), size in itertools.product(
        map(int, types_of_keys.split()), keys, sizes
    ):
        for body in (bytes(size), choose.randbytes(size)):
            header = SearchHeader(3, objectid, offset, type_, size)
            answer.append([list(header), item(header, body)])
    return {"no real items": answer}


def ask(questions: str, scope: dict[str, Any], function: Callable[[Any], Any]) -> Answers:
    """Answer questions, one in each line.

    Args:
        questions: Expressions.
        scope: What they may use besides the `NAMESPACE`.
        function: Turns what an expression returns into an answer.
    """
    # One namespace for both: functions inside of an expression see no locals.
    namespace = {**NAMESPACE, **scope}
    return {
        question: answered(question, namespace, function)
        for question in questions.strip().splitlines()
    }


def answered(question: str, namespace: dict[str, Any], function: Callable[[Any], Any]) -> Any:
    try:
        return function(eval(question, namespace))
    except Exception as error:  # noqa: BLE001 - an error of any kind is an answer, too
        return raised(error)


def describe(value: Any) -> Any:
    """Return a value as JSON can have it: of an object, all that it says about itself."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): describe(inside) for key, inside in value.items()}
    if isinstance(value, (tuple, list, Iterator)):
        return [describe(element) for element in value]
    return describe_object(value)


def describe_object(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Key):
        return [type(value).__name__, str(value), value.key]
    attributes = {name: guarded(getattr, value, name) for name in names(value)}
    answer = {
        "class": type(value).__name__,
        "str": guarded(str, value),
        "attributes": {name: inside for name, inside in attributes.items() if inside is not METHOD},
    }
    if isinstance(value, Sequence):
        answer["elements"] = [describe(element) for element in value]
    return answer


METHOD = object()
NAMES: dict[Any, list[str]] = {}


def names(value: Any) -> list[str]:
    """Return the names of all public attributes; dir() would take most of the time."""
    kind = type(value), tuple(getattr(value, "__dict__", ()))
    if kind not in NAMES:
        NAMES[kind] = [name for name in dir(value) if not name.startswith("_")]
    return NAMES[kind]


def guarded(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function and return the description of its result, or what it raised."""
    try:
        result = function(*args)
        return METHOD if callable(result) else describe(result)
    except Exception as error:  # noqa: BLE001 - an error of any kind is an answer, too
        return raised(error)


def raised(error: Exception) -> dict[str, Any]:
    kinds = [cls.__name__ for cls in type(error).__mro__]
    return {
        "raises": kinds[0],
        "kinds": kinds,
        "message": str(error),
        "errno": getattr(error, "errno", None),
        "state": getattr(error, "state", None),
    }


def every(function: Callable[..., Any], *columns: Iterable[Any]) -> list[Any]:
    """Call a function with all combinations of arguments."""
    return [guarded(function, *args) for args in itertools.product(*columns)]


def printed(function: Callable[[Any], Any], value: Any) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        function(value)
    return text.getvalue()


def whole(value: Any) -> Any:
    """Return the description of a value, and what is printed of it; of many, one by one."""
    if isinstance(value, (list, Iterator)):
        return [whole(element) for element in value]
    return {
        "value": describe(value),
        "pretty": guarded(printed, utils.pretty_print, value),
        "printed": guarded(printed, utils.str_print, value),
    }


def item(header: SearchHeader, data: Any) -> Any:
    """Return the description of an item, even if that makes classify() fail."""
    try:
        return whole(classify(header, data))
    except Exception as error:  # noqa: BLE001 - an error of any kind is an answer, too
        return raised(error)


# Values for questions that need no filesystem.
PROFILES = [
    type_ | profile for type_ in (1, 2, 4, 5) for profile in (0, 8, 16, 32, 64, 128, 256, 512, 1024)
]
CHUNKS = [
    types.SimpleNamespace(type=flags, num_stripes=stripes, length=stripes << 30)
    for flags in PROFILES
    for stripes in (4, 6, 10)
]
OBJECTIDS = [
    Key(objectid, type_, offset)
    for type_ in (1, 48, 132, 144, 204, 216, 228, 246, 248, 249)
    for objectid in (*range(14), *range(-14, 0), 255, 256, 257, 1 << 48)
    for offset in (0, 5, 256, 1 << 48, -1, -9)
]
CONTAINERS = [
    *([], [1, 2], {}, {"a": 1, "b": [1, 2]}, {"a": {"b": Key(5, 1, 9)}}, "text", 5, None),
    *([Key(5, 1, 9)], {1: b"bytes"}, [[1], [2, [3]], {}], b"bytes", (), (1, Key(5, 1, 9))),
    *({1}, uuid.UUID(int=5), True),
]
SIZES = [0, 1, 1023, 1024, 1535, 10**6, (1 << 30) - 1, 5 << 40, 1 << 63, 1 << 70, -5, -(3 << 20)]
FLAGS = [
    *(0, 1, 2, 3, 4, 5, 7, 8, 0x11, 0x24, 0x45, 0x105, 0x201, 0x404, 0x81, 1 << 48, 1 << 49),
    *((1 << 49) | 4, 0x18, 0x7F8, 1 << 11, (1 << 64) - 1),
]
KEYS = [
    *(Key(2, "ROOT_ITEM", 0), Key(-9, 132, 5), Key(-8, 132, 7), Key(0, 0, 0)),
    *(Key(-1, -1, -1), Key(256, 0, 7)),
]

NAMESPACE: dict[str, Any] = {
    "CHUNKS": CHUNKS,
    "CONTAINERS": CONTAINERS,
    "FLAGS": FLAGS,
    "KEYS": KEYS,
    "OBJECTIDS": OBJECTIDS,
    "PROFILES": PROFILES,
    "SIZES": SIZES,
    "TYPES": [Key(1, type_, 2) for type_ in range(256)],
    "DiskKey": DiskKey,
    "Key": Key,
    "btrfs": btrfs,
    "crc32c": crc32c,
    "ctree": ctree,
    "every": every,
    "free_space_tree": free_space_tree,
    "fs_usage": fs_usage,
    "ioctl": ioctl,
    "printed": printed,
    "utils": utils,
    "uuid": uuid,
    "volumes": volumes,
}
