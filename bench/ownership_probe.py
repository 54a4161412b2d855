"""What bench.ownership times, each in a process of its own: see bench.probe."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from btrfs.source.choice import SourceChoice


def scan(target: str, source: SourceChoice, memory: str) -> tuple[float, int]:
    """Scan a filesystem for what its subvolumes use; count the bytes that they refer to."""
    import btrfs
    from btrfs.ownership import scan as scan_all

    limit = None if memory == "all" else int(memory)
    begin = time.perf_counter()
    with btrfs.FileSystem(target, source=source) as fs:
        owned = scan_all(fs, names=False, memory=limit)
        subvolumes = owned.subvolumes()
    seconds = time.perf_counter() - begin
    if owned.unexplained:
        raise RuntimeError(f"{owned.unexplained} bytes are unexplained")
    return seconds, sum(one.referenced.total for one in subvolumes)


def write_blocks(image: str, target: str) -> int:
    """Write where the blocks of all trees are into a file, as numbers; return how many."""
    import btrfs
    from btrfs.ownership import scan as scan_all

    with btrfs.FileSystem(image, source="unmounted") as fs:
        vaddrs = np.sort(scan_all(fs, names=False).tables.blocks.vaddr)
        chunks = [(chunk.vaddr, chunk.length, chunk.stripes[0].offset) for chunk in fs.chunks()]
        paddrs = vaddrs.copy()
        for begin, length, start in chunks:
            inside = (vaddrs >= begin) & (vaddrs < begin + length)
            paddrs[inside] = vaddrs[inside] - begin + start
        Path(target).write_text(json.dumps([fs.nodesize, paddrs.tolist()]))
    return len(vaddrs)


def blocks(image: str, list_of_blocks: str) -> tuple[float, int]:
    """Read blocks one after another, neighbours together, and check their checksums."""
    import google_crc32c

    nodesize, paddrs = json.loads(Path(list_of_blocks).read_text())
    begin = time.perf_counter()
    at = np.array(paddrs)
    first = [0, *(np.flatnonzero(np.diff(at) != nodesize) + 1).tolist(), len(at)]
    descriptor = os.open(image, os.O_RDONLY)
    bad = 0
    for start, end in pairwise(first):
        data = os.pread(descriptor, (end - start) * nodesize, paddrs[start])
        for offset in range(0, len(data), nodesize):
            block = data[offset : offset + nodesize]
            found = google_crc32c.value(block[32:])
            bad += found.to_bytes(4, "little") != block[:4]
    if bad:
        raise RuntimeError(f"{bad} checksums do not match")
    return time.perf_counter() - begin, len(paddrs)


PROBES: dict[str, Callable[..., tuple[float, int]]] = {"scan": scan, "blocks": blocks}


def main() -> None:
    """Run the probe that is named, and print its figures as JSON."""
    _, name, *arguments = sys.argv
    if name == "write_blocks":
        print(write_blocks(*arguments))
        return
    seconds, count = PROBES[name](*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps({"seconds": seconds, "count": count, "peak": peak}))


if __name__ == "__main__":
    main()
