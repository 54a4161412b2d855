"""Address lines: every byte of a filesystem has its places on them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from btrfs import ioctl
from btrfs.ctree import FileSystem
from btrfs.volumes import BLOCK_GROUP_DATA, block_group_profile_ncopies
from btrfs_atlas.explorer.model import lines, snapshot
from btrfs_atlas.explorer.model.lines import Line, Part
from heatmap import HeatmapError, curves
from tests import support

LAYOUTS = [
    (1, "single", "dup"),
    (2, "raid1", "raid1"),
    (3, "raid0", "raid1"),
    (4, "raid10", "raid10"),
    (3, "raid5", "raid1"),
    (4, "raid6", "raid1c3"),
]


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: layout[1])
def striped(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[support.LoopFilesystem]:
    """A filesystem with a file of which no sector is like another."""
    devices, data, metadata = request.param
    folder = tmp_path_factory.mktemp("striped")
    with support.filesystem(folder, devices=devices, size="1G", data=data, metadata=metadata) as fs:
        sectors = np.arange(3 << 20, dtype="<u4")
        (fs.mountpoint / "numbers").write_bytes(sectors.tobytes())
        fs.sync()
        yield fs


def test_bytes_of_a_file_lie_where_the_line_says(striped: support.LoopFilesystem) -> None:
    file = striped.mountpoint / "numbers"
    content = file.read_bytes()
    with FileSystem(striped.mountpoint) as fs:
        now = snapshot.take_snapshot(fs)
    physical = now.lines[lines.PHYSICAL]
    compared = 0
    with file.open("rb") as opened:
        extents = list(ioctl.fiemap(opened.fileno()))
    for extent in extents:
        begin, size = physical.ranges_of(np.array([extent.vaddr]), np.array([extent.length]))
        for start, length in zip(begin.tolist(), size.tolist(), strict=True):
            place = physical.locate(start)
            assert place.vaddr is not None
            assert place.devid is not None
            assert place.paddr is not None
            at = extent.logical + place.vaddr - extent.vaddr
            assert read(striped.images[place.devid - 1], place.paddr) == content[at : at + 4096]
            assert now.groups[place.group or 0].vaddr == place.group
            compared += length
    assert compared == len(content) * block_group_profile_ncopies(
        next(group.flags for group in now.groups.values() if group.flags & BLOCK_GROUP_DATA)
    )


def read(image: Path, paddr: int) -> bytes:
    """Return a sector of an image."""
    with image.open("rb") as file:
        return os.pread(file.fileno(), 4096, paddr)


def test_virtual_line_leads_to_the_first_copy(striped: support.LoopFilesystem) -> None:
    with FileSystem(striped.mountpoint) as fs:
        now = snapshot.take_snapshot(fs)
    virtual, physical = now.lines[lines.VIRTUAL], now.lines[lines.PHYSICAL]
    for part in virtual.parts:
        for offset in range(0, part.length, part.length // 7):
            there = virtual.locate(part.start + offset)
            assert (there.vaddr, there.group) == (part.vaddr + offset, part.vaddr)
            device = next(d for d in physical.devices if d.devid == there.devid)
            assert there.paddr is not None
            assert physical.locate(device.start + there.paddr).vaddr == there.vaddr


@pytest.mark.parametrize("curve", curves.CURVES)
def test_pixels_divide_the_line(curve: str) -> None:
    line = Line("virtual", [Part(0, 999_999, 0)], [], {}, 4096)
    side = range(0, 256, 5)
    for row, column in itertools.product(side, side):
        first, length = line.pixel(curve, 0, row, column)
        assert line.at(curve, 0, first) == line.at(curve, 0, first + length - 1) == (row, column)
        if first:
            assert line.at(curve, 0, first - 1) != (row, column)


@pytest.mark.parametrize(
    ("length", "max_zoom"), [(1, 0), (4096 << 16, 0), ((4096 << 16) + 1, 1), (1 << 40, 6)]
)
def test_a_pixel_of_the_last_zoom_is_a_sector(length: int, max_zoom: int) -> None:
    line = Line("virtual", [Part(0, length, 0)], [], {}, 4096)
    assert line.max_zoom == max_zoom


def test_parts_never_overlap() -> None:
    line = Line("virtual", [Part(0, 100, 1), Part(50, 100, 2), Part(50, 20, 3)], [], {}, 4096)
    assert [(part.start, part.length) for part in line.parts] == [(0, 50), (50, 20)]


@pytest.mark.parametrize("length", [0, 1 << 62])
def test_an_impossible_length_is_refused(length: int) -> None:
    with pytest.raises(HeatmapError, match="cannot draw"):
        Line("virtual", [Part(0, length, 0)], [], {}, 4096)


@pytest.mark.parametrize(
    "place", [(-1, 0, 0), (9, 0, 0), (0, 256, 0), (0, 0, -1), (1 << 70, 0, 0), (0, 1 << 70, 0)]
)
def test_pixels_outside_are_refused(place: tuple[int, int, int]) -> None:
    line = Line("virtual", [Part(0, 1 << 30, 0)], [], {}, 4096)
    with pytest.raises(ValueError, match=r"out of range|no pixel"):
        line.pixel("hilbert", *place)
