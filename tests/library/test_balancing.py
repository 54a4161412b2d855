"""Moving block groups: which, in which order, what that gives, and what is left of it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import btrfs
from btrfs import ioctl
from btrfs.balance import planning, running, simulation
from btrfs.balance.estimate import estimate
from btrfs.balance.planning import Action, Selection
from btrfs.ioctl import BalanceError
from tests import support
from tests.lab import block_groups


@contextlib.contextmanager
def filled(folder: Path, keep: list[int], **options: Any) -> Iterator[btrfs.FileSystem]:
    """Make a filesystem with block groups of which some pieces are left, and open it."""
    settings = {"size": block_groups.SIZE, "data": "single", "metadata": "dup", **options}
    with support.filesystem(folder, **settings) as made:
        block_groups.fill_block_groups(made.mountpoint, keep)
        with btrfs.FileSystem(made.mountpoint) as fs:
            yield fs


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[btrfs.FileSystem]:
    """A filesystem with a block group that takes seconds to move."""
    with filled(tmp_path_factory.mktemp("scattered"), []) as fs:
        block_groups.scatter(Path(fs.path) / "scattered")
        yield fs


def used_of_data(fs: btrfs.FileSystem) -> int:
    return sum(group.used for group in fs.block_groups() if group.flags & btrfs.BLOCK_GROUP_DATA)


def begun(steps: list[planning.Step]) -> list[int]:
    return [step.vaddr for step in steps if step.action is Action.BEGIN]


CASES: list[tuple[list[int], Selection, dict[str, Any]]] = [
    ([20, 15, 7, 0], Selection(), {}),
    ([1, 2, 3, 4], Selection(used_pct=30), {}),
    ([25, 25, 25, 25], Selection(used_pct=90), {}),
    ([12, 3, 20, 9], Selection(order="vaddr", limit=2), {}),
    ([10, 10], Selection(), {"devices": 2, "data": "raid1", "metadata": "raid1"}),
    ([7, 8, 5, 4], Selection(), {"devices": 3, "data": "raid5", "metadata": "raid1"}),
    ([9, 8, 7], Selection(used_pct=60), {"mixed": True, "data": "single", "metadata": "single"}),
]


@pytest.mark.parametrize(("keep", "selection", "options"), CASES)
def test_what_was_estimated_comes_true(
    tmp_path: Path, keep: list[int], selection: Selection, options: dict[str, Any]
) -> None:
    with filled(tmp_path, keep, **options) as fs:
        used = used_of_data(fs)
        estimated = estimate(fs, selection)
        assert estimated.before == planning.unallocated(fs)
        steps = list(running.balance(fs, selection))
        assert planning.unallocated(fs) == estimated.after
        done = [step for step in steps if step.action is not Action.BEGIN]
        assert [(step.action, step.vaddr, step.used_pct) for step in done] == [
            (step.action, step.vaddr, step.used_pct) for step in estimated.steps
        ]
        assert estimated.gain > 0
        # In a mixed block group, there are tree blocks, which come and go.
        assert abs(used_of_data(fs) - used) < (1 << 20 if "mixed" in options else 1)


def test_the_estimate_knows_that_free_space_is_in_pieces(tmp_path: Path) -> None:
    with support.filesystem(
        tmp_path, size=block_groups.SIZE, data="single", metadata="dup"
    ) as made:
        block_groups.fragment(made.mountpoint)
        with btrfs.FileSystem(made.mountpoint) as fs:
            selection = Selection(used_pct=40)
            groups = planning.candidates(fs, selection)
            estimated = estimate(fs, selection)
            list(running.balance(fs, selection))
            gain = planning.unallocated(fs) - estimated.before
    # In bytes, there is more than enough free space in the others, but none for large extents.
    assert 0 < estimated.gain < sum(group.length for group in groups)
    assert abs(gain - estimated.gain) <= max(group.length for group in groups)


def test_small_and_large_extents_do_not_mix(tmp_path: Path) -> None:
    """Two block groups that are almost empty may still not become one; the estimate knows it."""
    with support.filesystem(tmp_path, size=block_groups.SIZE, data="single") as made:
        for number in range(300):
            (made.mountpoint / f"file{number}").write_bytes(bytes(40_000))
        made.sync()
        for number in range(30):
            block_groups.allocate(made.mountpoint / f"large{number}", 6 << 20)
        made.sync()
        for number in range(2, 30):
            (made.mountpoint / f"large{number}").unlink()
        made.sync()
        with btrfs.FileSystem(made.mountpoint) as fs:
            estimated = estimate(fs, Selection())
            steps = list(running.balance(fs, Selection()))
            assert planning.unallocated(fs) == estimated.after
            assert begun(steps) == [step.vaddr for step in estimated.steps]
            left = planning.candidates(fs, Selection())
    if simulation.kernel_version() >= (6, 3):
        assert len(left) == 2
    assert sum(group.used for group in left) < left[0].length // 2


def test_many_lengths_are_rounded_up() -> None:
    """So that the estimate does not take for ever where each extent has another length."""
    few = Counter({4096 * number: number for number in range(1, 200)})
    assert simulation._rounded(few) == few
    many = Counter({4096 * number: number for number in range(1, 5000)})
    rounded = simulation._rounded(many)
    assert len(rounded) < 300
    assert rounded.total() == many.total()
    exact = sum(length * count for length, count in many.items())
    assert exact <= sum(length * count for length, count in rounded.items()) <= 1.07 * exact


def test_each_is_tried_once(tmp_path: Path) -> None:
    with filled(tmp_path, [20, 15, 7, 0]) as fs:
        before = {group.vaddr for group in planning.candidates(fs, Selection())}
        tried = begun(list(running.balance(fs, Selection())))
        assert sorted(tried) == sorted(before)
        group = next(g for g in fs.block_groups() if g.flags & btrfs.BLOCK_GROUP_DATA)
        assert running.move_block_group(fs, group)
        assert not running.move_block_group(fs, group), "it is gone already"


def test_order_and_selection(tmp_path: Path) -> None:
    with filled(tmp_path, [20, 15, 7, 10]) as fs:
        groups = planning.candidates(fs, Selection())
        assert [group.vaddr for group in groups] == sorted(group.vaddr for group in groups)
        by_use = [group.vaddr for group in sorted(groups, key=lambda group: group.used_pct)]
        assert by_use != [group.vaddr for group in groups]
        tried = [step.vaddr for step in estimate(fs, Selection()).steps]
        assert tried[:2] == by_use[:2]
        by_chance = {
            tuple(step.vaddr for step in estimate(fs, Selection(order="random")).steps)
            for _ in range(20)
        }
        assert len(by_chance) > 1
        few = Selection(used_pct=25)
        assert 0 < len(planning.candidates(fs, few)) < len(groups)
        assert all(group.used_pct <= 25 for group in planning.candidates(fs, few))
        metadata = Selection(types=btrfs.BLOCK_GROUP_METADATA | btrfs.BLOCK_GROUP_SYSTEM)
        assert {group.vaddr for group in planning.candidates(fs, metadata)}.isdisjoint(
            group.vaddr for group in groups
        )
        assert planning.least_used_pct(fs, metadata) == 0
        raid = Selection(types=btrfs.BLOCK_GROUP_RAID1)
        assert planning.least_used_pct(fs, raid) is None
        with pytest.raises(btrfs.BtrfsError, match="no device 7") as raised:
            planning.candidates(fs, Selection(devid=7))
        assert raised.value.hint == "the numbers of its devices are 1"


def test_a_device_of_several(tmp_path: Path) -> None:
    with support.filesystem(
        tmp_path, devices=2, size=block_groups.SIZE, data="single", metadata="raid1"
    ) as fs_:
        block_groups.fill_block_groups(fs_.mountpoint, [5, 5, 5, 5])
        with btrfs.FileSystem(fs_.mountpoint) as fs:
            for devid in (1, 2):
                chosen = {g.vaddr for g in planning.candidates(fs, Selection(devid=devid))}
                there = {e.vaddr for e in fs.dev_extents(devid, devid)}
                assert chosen
                assert chosen <= there
            total = planning.unallocated(fs)
            assert total == planning.unallocated(fs, 1) + planning.unallocated(fs, 2)
            selection = Selection(devid=2, target_free=planning.unallocated(fs, 2) + 1)
            steps = list(running.balance(fs, selection))
            assert begun(steps)
            assert planning.unallocated(fs, 2) >= (selection.target_free or 0)


def test_stops_when_enough_is_free(tmp_path: Path) -> None:
    with filled(tmp_path, [5, 5, 5, 5]) as fs:
        free = planning.unallocated(fs)
        assert list(running.balance(fs, Selection(target_free=free))) == []
        wanted = Selection(target_free=free + (200 << 20))
        estimated = estimate(fs, wanted)
        steps = list(running.balance(fs, wanted))
        assert planning.unallocated(fs) == estimated.after >= free + (200 << 20)
        assert len(planning.candidates(fs, Selection())) > 1, "some are left"
        assert len(begun(steps)) == sum(s.action is Action.MOVED for s in estimated.steps)
        assert len(begun(list(running.balance(fs, Selection(limit=1))))) == 1


def test_what_cannot_move_is_passed_over(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="600M", data="single", metadata="single") as made:
        pieces = block_groups.fill_completely(made.mountpoint)
        for number in range(0, pieces, 10):
            (made.mountpoint / f"piece{number}").unlink()
        made.sync()
        with btrfs.FileSystem(made.mountpoint) as fs:
            steps = list(running.balance(fs, Selection()))
            stuck = [step for step in steps if step.action is Action.STUCK]
            assert stuck
            assert all("no space for what is in it (ENOSPC)" in step.reason for step in stuck)
            assert len(begun(steps)) == len(set(begun(steps))), "none is tried twice"
            assert steps.index(stuck[0]) < len(steps) - 1, "others are tried after it"


def test_what_vanishes_meanwhile(tmp_path: Path) -> None:
    with filled(tmp_path, [2, 3, 7, 3]) as fs:
        first, second, *_ = (g.vaddr for g in planning.candidates(fs, Selection()))
        steps = running.balance(fs, Selection(order="vaddr"))
        assert next(steps).action is Action.BEGIN
        # Somebody else removes two of them, the one whose turn it is too.
        ioctl.balance_v2(fs.fd, ioctl.BalanceArgs(vend=second + 1))
        rest = list(steps)
        assert [(step.action, step.vaddr) for step in rest[:2]] == [
            (Action.GONE, first),
            (Action.GONE, second),
        ]
        assert {step.action for step in rest[2:]} == {Action.BEGIN, Action.MOVED}


# Who else there is.


def test_refuses_where_there_is_a_balance(tmp_path: Path) -> None:
    with filled(tmp_path, [20, 15]) as fs:
        with pausing(fs):
            with pytest.raises(btrfs.BtrfsError, match="a balance is paused already") as raised:
                list(running.balance(fs, Selection()))
            assert "btrfs balance cancel" in (raised.value.hint or "")
            assert ioctl.balance_progress(fs.fd).state == 0, "it is left alone"
        # One that is begun after the first step.
        steps = running.balance(fs, Selection())
        next(steps)
        with pausing(fs):
            with pytest.raises(BalanceError, match="Already in progress") as failed:
                list(steps)
            assert failed.value.hint
            assert ioctl.balance_progress(fs.fd).state == 0


@contextlib.contextmanager
def pausing(fs: btrfs.FileSystem) -> Iterator[None]:
    """Have a balance that is paused, which is nobody's here, for as long as the block runs."""
    assert support.pause_balance(Path(fs.path))
    try:
        yield
    finally:
        ioctl.balance_ctl(fs.fd, ioctl.BALANCE_CTL_CANCEL)


def test_cancelled_by_somebody_else(scattered: btrfs.FileSystem) -> None:
    def cancel(_: int) -> None:
        with contextlib.suppress(BalanceError):
            ioctl.balance_ctl(scattered.fd, ioctl.BALANCE_CTL_CANCEL)

    with pytest.raises(BalanceError, match="canceled by user") as raised:
        list(running.balance(scattered, Selection(), progress=cancel))
    assert raised.value.errno == errno.ECANCELED
    assert raised.value.hint


def test_read_only_and_unmounted(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="300M") as made:
        made.remount("ro")
        with (
            btrfs.FileSystem(made.mountpoint) as fs,
            pytest.raises(btrfs.BtrfsError, match="mounted read-only"),
        ):
            next(running.balance(fs, Selection()))
        made.unmount()
        with btrfs.FileSystem(made.images[0]) as fs:
            assert estimate(fs, Selection()).before == planning.unallocated(fs)
            with pytest.raises(btrfs.errors.NotMountedError):
                next(running.balance(fs, Selection()))


# Interrupted.


def test_an_error_of_the_caller_ends_the_balance(scattered: btrfs.FileSystem) -> None:
    """What the progress function raises comes out, and nothing is left running."""
    seen = []

    def complain(copied: int) -> None:
        seen.append(copied)
        if len(seen) == 3:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        list(running.balance(scattered, Selection(), progress=complain))
    assert min(seen) >= 0
    assert max(seen) <= used_of_data(scattered)
    with pytest.raises(BalanceError, match="No balance found"):
        ioctl.balance_progress(scattered.fd)


SCRIPT = """
import signal, sys
import btrfs
from btrfs.balance import planning, running

with btrfs.FileSystem(sys.argv[1]) as fs:
    for step in running.balance(fs, planning.Selection()):
        print(step.action.value, flush=True)
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)]
)
def test_a_script_that_knows_nothing_of_signals(
    scattered: btrfs.FileSystem, number: signal.Signals, status: int
) -> None:
    """It ends as it would without a balance, but only when that has ended."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, scattered.path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        wait_for_balance(scattered, running)
        running.send_signal(number)
        _, told = running.communicate()
    assert running.returncode == status
    assert ("KeyboardInterrupt" in told) == (number is signal.SIGINT)
    with pytest.raises(BalanceError, match="No balance found"):
        ioctl.balance_progress(scattered.fd)


def wait_for_balance(fs: btrfs.FileSystem, running: subprocess.Popen[str]) -> None:
    """Wait until the process has come to the file of many extents."""
    scattered = os.stat(Path(fs.path) / "scattered").st_blocks * 512
    largest = max(group.used for group in fs.block_groups())
    assert largest >= scattered // 2
    while running.poll() is None:
        with contextlib.suppress(BalanceError):
            status = ioctl.balance_status(fs.fd)
            if fs.block_group(status.data.vstart).used == largest:
                break
        time.sleep(0.01)
    time.sleep(0.1)
