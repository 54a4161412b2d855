"""Draw the sample filesystem that comes with the package: `python scripts/demo.py FOLDER`.

It looks up a data and a metadata block group with the library, then runs the programs as a user
would.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import btrfs

HEATMAP, ATLAS = (Path(sys.executable).with_name(name) for name in ("btrfs-heatmap", "btrfs-atlas"))


def main() -> None:
    """Draw four pictures and a map into the folder named on the command line; print their paths."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with resources.as_file(
        resources.files("btrfs_atlas") / "data" / "sample.btrfs-image"
    ) as sample:
        for name, options in pictures(sample):
            picture = folder / name
            subprocess.run([HEATMAP, "-q", *options, "-o", picture, sample], check=True)
            print(picture)
        atlas = folder / "atlas.html"
        subprocess.run([ATLAS, "export-html", "-q", "-o", atlas, sample], check=True)
        print(atlas)


def pictures(sample: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the file name of each picture, and the options of btrfs-heatmap for it."""
    yield "physical.png", []
    yield "virtual.png", ["--sort", "virtual"]
    with btrfs.FileSystem(sample) as fs:
        data = most_fragmented(fs, btrfs.BLOCK_GROUP_DATA)
        metadata = most_fragmented(fs, btrfs.BLOCK_GROUP_METADATA)
    yield f"data-{data}.png", ["--blockgroup", str(data)]
    yield f"metadata-{metadata}.png", ["--blockgroup", str(metadata)]


def most_fragmented(fs: btrfs.FileSystem, kind: int) -> int:
    """Return the address of the block group of this kind that has the most extents."""
    chunks = [chunk for chunk in fs.chunks() if chunk.type & kind]
    fullest = max(
        chunks,
        key=lambda chunk: sum(1 for _ in fs.extents(chunk.vaddr, chunk.vaddr + chunk.length - 1)),
    )
    return fullest.vaddr


if __name__ == "__main__":
    main()
