"""`python -m tests.fuzz.coverage_guided`: bodies of items and tree blocks, guided by coverage.

It needs atheris, which is no dependency of anything else: `pip install atheris`. Atheris watches
which code of the library is reached, keeps what reached something new, and goes on from there. It
begins with the blocks and items of the seeds. All further words are for libFuzzer.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SECONDS = 120
ITEM, BLOCK = 0, 1
"""The first byte of an input says what it is."""


def main() -> int:
    """Run, in a process of its own as libFuzzer ends it; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="how long")
    parser.add_argument("--corpus", type=Path, help="folder of inputs to begin with and to add to")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options, words = parser.parse_known_args()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: nothing is done that is guided by coverage")
        return 0
    if options.here:
        return _fuzz(words)
    with contextlib.ExitStack() as stack:
        corpus = options.corpus or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        corpus.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs()):
            (corpus / f"seed{number}").write_bytes(data)
        limits = (f"-max_total_time={options.seconds}", "-rss_limit_mb=512", "-timeout=60")
        argv = (sys.executable, "-m", "tests.fuzz.coverage_guided", "--here")
        command = (*argv, os.fspath(corpus), "-max_len=65536", *limits, *words)
        return subprocess.run(command, check=False).returncode


def inputs() -> Iterator[bytes]:
    """Yield the blocks of a seed, and an item of each type and size in some."""
    from tests.fuzz import images

    types: set[tuple[int, int]] = set()
    for name in ("single", "quota", "received", "shared", "old", "orphan"):
        for block in images.parse(name).blocks.values():
            if name == "single":
                yield bytes([BLOCK]) + block.data
            for item in block.items() if block.level == 0 else []:
                kind = (item.key[1], item.size // 16)
                if kind not in types:
                    types.add(kind)
                    body = block.data[item.start : item.start + item.size]
                    yield bytes([ITEM]) + images.KEY.pack(*item.key) + body


def _fuzz(words: list[str]) -> int:
    """Let atheris run until the time is over or something is found."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["btrfs"]):
        from tests.fuzz.targets import try_block, try_item

    targets: dict[int, Callable[[bytes], None]] = {ITEM: try_item, BLOCK: try_block}

    def one_input(data: bytes) -> None:
        if data:
            targets[data[0] & 1](data[1:])

    atheris.Setup([sys.argv[0], *words], one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
