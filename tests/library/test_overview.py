"""btrfs.space.overview and btrfs.space.advice: full, starved, degraded and damaged filesystems."""

from __future__ import annotations

from pathlib import Path

import pytest

import btrfs
from btrfs import FileSystem
from btrfs.space import advice, overview
from tests import support
from tests.lab import block_groups
from tests.support import spoil
from tests.support.programs import SAMPLE

MIB = 1 << 20


def space_of(made: support.LoopFilesystem) -> overview.SpaceState:
    made.sync()
    with FileSystem(made.mountpoint) as fs:
        return overview.space(fs)


def test_agrees_with_the_usage() -> None:
    with FileSystem(SAMPLE) as fs:
        state, usage = overview.space(fs), fs.usage()
        (device,) = overview.devices(fs)
    assert (state.size, state.allocated) == (usage.total, usage.allocated)
    assert state.unallocated == usage.total - usage.allocated
    assert state.data is not None
    assert state.metadata is not None
    data = usage.virtual_block_group_type_usage[btrfs.BLOCK_GROUP_DATA]
    assert (state.data.total, state.data.used) == (data.total, data.used)
    assert (state.data.writable, state.data.profiles) == (usage.free_data, ["single"])
    assert state.metadata.profiles == ["DUP"]
    assert state.mixed is None
    assert state.complete
    assert (state.metadata_shortage, state.data_shortage) == (None, None)
    # A dump knows of a device, but not where it is.
    assert (device.path, device.missing, device.errors) == (None, False, {})


def test_full_of_data(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="1G", data="single", metadata="dup") as made:
        state = space_of(made)
        assert state.data_shortage is None
        assert state.data is not None
        promised = state.data.writable
        assert promised is not None
        written = block_groups.fill_completely(made.mountpoint, piece=MIB) * MIB
        assert abs(written - promised) < promised / 50
        state = space_of(made)
        assert state.data_shortage is not None
        assert state.data_shortage.free < MIB
        assert state.data_shortage.reclaimable < state.size // 100
        assert state.metadata_shortage is None
        with pytest.raises(OSError, match="No space left on device"):
            block_groups.allocate(made.mountpoint / "more", MIB)
        # It is no longer so after a deletion, mounted or not.
        for number in range(100):
            (made.mountpoint / f"piece{number}").unlink()
        assert space_of(made).data_shortage is None
        made.unmount()
        with FileSystem(made.images[0]) as fs:
            assert advice.data_shortage(fs) is None


def test_an_empty_device_beside_full_ones(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, devices=2, data="raid1", metadata="raid1") as made:
        block_groups.fill_completely(made.mountpoint)
        made.btrfs("device", "add", "-f", made.add_image("1G"), made.mountpoint)
        shortage = space_of(made).data_shortage
    assert shortage is not None
    # A new block group needs two devices.
    assert 700 * MIB < shortage.reclaimable <= 1024 * MIB


def test_mixed_block_groups(tmp_path: Path) -> None:
    with support.filesystem(
        tmp_path, size="300M", data="single", metadata="single", mixed=True
    ) as made:
        state = space_of(made)
        assert (state.data, state.metadata) == (None, None)
        assert state.mixed is not None
        assert state.mixed.writable is not None
        assert state.mixed.writable > 200 * MIB
        assert state.data_shortage is None
        block_groups.fill_completely(made.mountpoint, piece=MIB)
        assert space_of(made).data_shortage is not None


def test_read_only(tmp_path: Path) -> None:
    with support.filesystem(tmp_path) as made:
        assert not space_of(made).read_only
        made.remount("ro")
        with FileSystem(made.mountpoint) as fs:
            assert overview.space(fs).read_only


def test_missing_device_and_errors(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, devices=2, data="raid1", metadata="raid1") as made:
        (made.mountpoint / "file").write_bytes(bytes(64 * MIB))
        made.sync()
        with FileSystem(made.mountpoint) as fs:
            spoil.overwrite_data(made, 2)
            made.btrfs("scrub", "start", "-B", made.mountpoint)
            first, second = overview.devices(fs)
        assert (first.path, first.missing, first.errors) == (made.devices[0], False, {})
        assert (second.missing, second.errors) == (False, {"corruption_errs": 2})
        made.unmount()
        with FileSystem(made.images) as fs:
            unmounted = overview.devices(fs)
        assert [device.errors for device in unmounted] == [{}, second.errors]
        spoil.lose_last_device(made, tmp_path / "away")
        with FileSystem(made.images[0]) as fs:
            assert [device.missing for device in overview.devices(fs)] == [False, True]
        made.mount("degraded")
        with FileSystem(made.mountpoint) as fs:
            first, second = overview.devices(fs)
        assert (first.missing, second.missing, second.path) == (False, True, None)
        assert second.allocated == first.allocated


def test_damage_makes_estimates_unknown(tmp_path: Path) -> None:
    """A dump cut off before the root tree: only the chunk tree is there."""
    cut = tmp_path / "cut.btrfs-image"
    cut.write_bytes(SAMPLE.read_bytes()[: 100 << 10])
    with FileSystem(cut, on_error="skip") as fs:
        state = overview.space(fs)
        (device,) = overview.devices(fs)
    assert not state.complete
    assert state.size == 24 << 30
    assert state.data is not None
    assert (state.data.used, state.data.writable) == (0, None)
    assert device.errors is None
    with FileSystem(cut) as fs, pytest.raises(btrfs.BtrfsError):
        overview.space(fs)
