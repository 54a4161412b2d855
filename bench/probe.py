"""What is timed: each probe runs in a process of its own.

`python -m bench.probe NAME ARGUMENT...` prints a Measurement as JSON. Which library `import btrfs`
means depends on the process: ours, or the one whose folder PYTHONPATH names. The time begins after
the imports; what is imported at the top of this module is there in every Python.
"""

from __future__ import annotations

import fcntl
import importlib.machinery
import importlib.util
import json
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

HEATMAP_V9 = "/usr/bin/btrfs-heatmap"

EXTENT_TREE = 2
ROOT_ITEM_KEY = 132
TREE_SEARCH_V2 = 0xC0709411
SEARCH_KEY = struct.Struct("=7Q4I4QQ")
"""struct btrfs_ioctl_search_args_v2, up to the buffer."""
SEARCH_HEADER = struct.Struct("=3Q2I")
MAX = 2**64 - 1

NODESIZE = 16384


def columns(source: Literal["mounted", "unmounted"], target: str) -> tuple[float, int]:
    """Read the extent tree into columns; count data extents."""
    import btrfs
    import btrfs.ondisk.columns

    begin = time.perf_counter()
    count = 0
    with btrfs.FileSystem(target, source=source) as fs:
        for batch in fs.columns(btrfs.ctree.ExtentItem):
            count += len(next(iter(batch.values())))
    return time.perf_counter() - begin, count


def extents(target: str) -> tuple[float, int]:
    """Read the extent tree as objects, with the call that both libraries have."""
    import btrfs

    with btrfs.FileSystem(target) as fs:
        # Our modules are imported when they are first used, python-btrfs's at once: neither counts.
        next(iter(fs.extents()))
        begin = time.perf_counter()
        count = sum(1 for _ in fs.extents())
        return time.perf_counter() - begin, count


def search_ioctl(target: str, buffer_size: str) -> tuple[float, int]:
    """Search the extent tree to its end; only the seconds inside the ioctl count."""
    size = int(buffer_size)
    arguments = bytearray(SEARCH_KEY.size + size)
    descriptor = os.open(target, os.O_RDONLY)
    seconds, count, found = 0.0, 0, 1
    objectid, kind, offset = 0, 0, 0
    while found:
        SEARCH_KEY.pack_into(
            arguments,
            0,
            *(EXTENT_TREE, objectid, MAX, offset, MAX, 0, MAX),
            *(kind, 255, 2**32 - 1, 0),
            *(0, 0, 0, 0, size),
        )
        begin = time.perf_counter()
        fcntl.ioctl(descriptor, TREE_SEARCH_V2, arguments)
        seconds += time.perf_counter() - begin
        found = SEARCH_KEY.unpack_from(arguments)[9]
        count += found
        position = SEARCH_KEY.size
        for _ in range(found):
            _, objectid, offset, kind, length = SEARCH_HEADER.unpack_from(arguments, position)
            position += SEARCH_HEADER.size + length
        offset += 1
    os.close(descriptor)
    return seconds, count


def read_blocks(image: str, addresses: str) -> tuple[float, int]:
    """Read the tree blocks whose physical addresses a JSON file lists into one buffer for all."""
    blocks: list[int] = json.loads(Path(addresses).read_text())
    descriptor = os.open(image, os.O_RDONLY)
    begin = time.perf_counter()
    buffer = memoryview(bytearray(len(blocks) * NODESIZE))
    for number, address in enumerate(blocks):
        os.preadv(descriptor, [buffer[number * NODESIZE : (number + 1) * NODESIZE]], address)
    seconds = time.perf_counter() - begin
    os.close(descriptor)
    return seconds, len(blocks)


def items(image: str) -> tuple[float, int]:
    """Read all items of the root tree, and of all trees that it names, as objects."""
    import btrfs

    begin = time.perf_counter()
    with btrfs.FileSystem(image, source="unmounted") as fs:
        roots = list(fs.search(btrfs.ctree.ROOT_TREE_OBJECTID))
        trees = [item.key.objectid for item in roots if item.key.type == ROOT_ITEM_KEY]
        count = len(roots) + sum(1 for tree in trees for _ in fs.search(tree))
    return time.perf_counter() - begin, count


def items_dissect(image: str) -> tuple[float, int]:
    """The same by dissect.btrfs, whose objects are the items' headers."""
    dissect_btrfs: Any = importlib.import_module("dissect.btrfs")
    with Path(image).open("rb") as file:
        begin = time.perf_counter()
        fs = dissect_btrfs.Btrfs(file)
        roots = [item for item, _ in fs._root_tree.cursor().walk()]
        trees = [item.key.objectid for item in roots if item.key.type == ROOT_ITEM_KEY]
        count = len(roots)
        for tree in trees:
            count += sum(1 for _ in fs._open_tree(tree).cursor().walk())
        return time.perf_counter() - begin, count


def picture(target: str, order: str, output: str) -> tuple[float, int]:
    """Draw all block groups' extents with our heatmap."""
    import heatmap

    return draw(heatmap, target, int(order), output)


def picture_v9(target: str, order: str, output: str) -> tuple[float, int]:
    """Draw all block groups' extents with btrfs-heatmap 9."""
    return draw(load_script("heatmap", HEATMAP_V9), target, int(order), output)


def draw(heatmap: ModuleType, target: str, order: int, output: str) -> tuple[float, int]:
    """Draw what two heatmap modules can both draw."""
    import btrfs

    begin = time.perf_counter()
    with btrfs.FileSystem(target) as fs:
        block_groups = [fs.block_group(chunk.vaddr, chunk.length) for chunk in fs.chunks()]
        heatmap.walk_extents(fs, block_groups, order=order, verbose=-1).write_png(output)
    return time.perf_counter() - begin, len(block_groups)


def load_script(name: str, path: str) -> ModuleType:
    """Import a program that has no .py at the end of its name."""
    loader = importlib.machinery.SourceFileLoader(name, path)
    specification = importlib.util.spec_from_loader(name, loader)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def peak_memory() -> int:
    """Return the most bytes that this process has had in memory.

    Not from getrusage: its figure begins with that of the process which started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


PROBES: dict[str, Callable[..., tuple[float, int]]] = {
    probe.__name__: probe
    for probe in (
        columns,
        extents,
        search_ioctl,
        read_blocks,
        items,
        items_dissect,
        picture,
        picture_v9,
    )
}


def main() -> None:
    """Run the probe named on the command line, and print what it measured."""
    seconds, count = PROBES[sys.argv[1]](*sys.argv[2:])
    json.dump({"seconds": seconds, "count": count, "peak": peak_memory()}, sys.stdout)


if __name__ == "__main__":
    main()
