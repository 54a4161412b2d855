"""Some hundred damaged images, always the same ones; `make fuzz` takes many more."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from btrfs import FileSystem
from tests.fuzz import cases, coverage_guided, images, mutate, runner, seeds, targets, worker
from tests.fuzz.cases import Case, Stage, case_of
from tests.fuzz.coverage_guided import BLOCK, ITEM
from tests.fuzz.exercise import STEPS, Findings, exercise
from tests.fuzz.mutate import Change

RUN = 7
IMAGES = 240


@pytest.fixture(name="stage")
def fixture_stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_nothing_crashes() -> None:
    figures = runner.run_cases(RUN, range(IMAGES))
    assert not figures.faults, list(figures.faults.values())
    assert figures.images == IMAGES
    # Most changes are meant to get past the superblock.
    assert figures.opened > IMAGES // 2
    assert figures.raised["CorruptError"]
    assert set(mutate.KINDS_OF_DEVICES) <= set(figures.kinds)


@pytest.mark.parametrize("name", seeds.names())
def test_good_images_are_good(name: str, stage: Stage) -> None:
    """What the fuzzer changes is read without complaint before."""
    findings = Findings()
    with stage.damaged(_case(name, [])) as paths:
        options = {"source": "unmounted", "on_error": "raise"}
        steps = ("batches", "infos", "usage", "subvolumes", "pictures")
        exercise(paths, options, steps, 1, findings)
        with FileSystem(paths, source="unmounted") as fs:
            assert not fs.damage
    assert findings.opened
    # Not every tree and every device that is asked for is there.
    assert set(findings.raised) <= {"TreeNotFoundError", "OSError"}


def test_a_number_is_always_the_same_case() -> None:
    assert case_of(RUN, 5) == case_of(RUN, 5)
    assert case_of(RUN, 5) != case_of(RUN, 6)
    case = case_of(RUN, 5)
    assert Case.from_text(case.as_text()) == case


def test_an_image_is_as_before_afterwards(stage: Stage, tmp_path: Path) -> None:
    with stage.damaged(_case("raid1", [])):
        before = _contents(tmp_path)
    for number in range(40):
        case = dataclasses.replace(case_of(RUN, number), seed="raid1")
        image = images.parse("raid1")
        if any(c.target == "block" and c.number not in image.blocks for c in case.changes):
            case = dataclasses.replace(case, changes=[Change("cut", "cut", number % 2, 70000)])
        with stage.damaged(case):
            pass
        assert _contents(tmp_path) == before


def test_checksums_are_put_right(stage: Stage) -> None:
    """A change gets as far as the items, and is seen there."""
    image = images.parse("single")
    root = next(
        (block, item)
        for block in image.blocks.values()
        if block.tree == images.ROOT_TREE and block.level == 0
        for item in block.items()
        if item.key == (5, images.ROOT_ITEM, 0)
    )
    block, item = root
    generation = (12345).to_bytes(8, "little").hex()
    otransid = item.start + 160 + 8 * 4
    change = Change("body", "block", block.vaddr, otransid, generation)
    with stage.damaged(_case("single", [change])) as paths, FileSystem(paths) as fs:
        assert fs.top_level().bytes_used == 12345
        assert not fs.damage
    unfixed = dataclasses.replace(change, fix=False)
    with stage.damaged(_case("single", [unfixed])) as paths, FileSystem(paths) as fs:
        with pytest.raises(Exception, match="checksum"):
            fs.top_level()
        assert fs.damage


def test_all_steps_can_be_chosen() -> None:
    chosen = {step for number in range(60) for step in case_of(RUN, number).steps}
    assert chosen == set(STEPS)
    assert all(len(case_of(RUN, number).steps) == cases.STEPS for number in range(5))


def _case(seed: str, changes: list[Change]) -> Case:
    return Case(seed, changes, {}, [], 0)


def _contents(folder: Path) -> dict[str, dict[int, bytes]]:
    """Return what is in the files of a folder that is not all zeros."""
    return {str(path): seeds.scan(path).pages for path in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def test_faults_are_noticed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    left_open: list[IO[bytes]] = []

    def fails(*_: object) -> None:
        raise KeyError(5)

    def never_ends(*_: object) -> None:
        while True:
            pass

    def leaves_open(files: list[str], *_: object) -> None:
        left_open.append(open(files[0], "rb"))  # noqa: SIM115 (that is the fault)

    monkeypatch.setattr(worker, "SECONDS", 0.2)
    previous = signal.getsignal(signal.SIGALRM)
    worker.limit_time()
    try:
        faults = []
        for faulty in (fails, never_ends, leaves_open):
            monkeypatch.setattr(worker, "exercise", faulty)
            faults.append(worker.take(case_of(RUN, 1), stage)["fault"]["error"])
    finally:
        signal.signal(signal.SIGALRM, previous)
        for file in left_open:
            file.close()
    assert faults == [
        "KeyError: 5",
        "SlowError: took more than 0.2 seconds",
        "files were left open",
    ]


def test_a_worker_that_dies_or_hangs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/bin/true")
        figures = runner.run_cases(RUN, range(2), workers=1)
    (fault,) = figures.faults.values()
    assert fault.error.startswith("the process died")
    assert fault.count == 2
    monkeypatch.setattr(runner, "SECONDS", 0)
    monkeypatch.setattr(runner, "GRACE_SECONDS", 0)
    (fault,) = runner.run_cases(RUN, [0], workers=1).faults.values()
    assert fault.error.startswith("the process hangs")


def test_what_coverage_guides_begins_with_good_inputs() -> None:
    """Every input is taken; that atheris is there is not needed for it."""
    found = {ITEM: 0, BLOCK: 0}
    for data in coverage_guided.inputs():
        found[data[0]] += 1
        (targets.try_item if data[0] == ITEM else targets.try_block)(data[1:])
    assert found[ITEM] > 30
    assert found[BLOCK] > 20
