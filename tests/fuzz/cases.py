"""Cases: which image is changed how, and what is then asked of it.

A number gives the same case each time; what led to a fault is kept in a file as plain text, so that
it can be looked into even when the seeds or the mutator have changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz import images, mutate, seeds
from tests.fuzz.exercise import choose_options, choose_steps
from tests.fuzz.images import Image
from tests.fuzz.mutate import Change, Damaged, Mutator

STEPS = 4
"""So many steps are taken with each damaged image."""


@dataclass(frozen=True, slots=True)
class Case:
    """A damaged image, and what is asked of it.

    Attributes:
        seed: Name of the seed.
        changes: What is changed.
        options: Keywords for FileSystem.
        steps: Names of the steps.
        choices: Number that the choices in the steps follow from.
    """

    seed: str
    changes: list[Change]
    options: dict[str, Any]
    steps: list[str]
    choices: int

    def as_text(self) -> str:
        """Return it as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_text(cls, text: str) -> Case:
        """Return the case that a text stands for."""
        plain = json.loads(text)
        plain["changes"] = [Change(**change) for change in plain["changes"]]
        return cls(**plain)


def case_of(run: int, number: int) -> Case:
    """Return the case of a number, in a run that has a number too."""
    choose = random.Random(f"{run} {number}")
    name = choose.choice(seeds.names())
    changes = Mutator(images.parse(name), choose).changes()
    return Case(name, changes, choose_options(choose), choose_steps(choose, STEPS), number)


class Stage:
    """Where the files of the images are, to be damaged and made good again.

    Args:
        folder: Where to make them; there is nothing else in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: set[str] = set()

    @contextlib.contextmanager
    def damaged(self, case: Case) -> Iterator[list[str]]:
        """Make the damaged files of a case for a while; yield their paths."""
        image = images.parse(case.seed)
        damaged = mutate.apply(image, case.changes)
        paths = self._paths(image)
        if case.seed not in self._made:
            for path, file in zip(paths, image.seed.files, strict=True):
                # Each in a folder of its own: one that is missing must not be found beside another.
                path.parent.mkdir(parents=True)
                file.write_to(path)
            self._made.add(case.seed)
        try:
            _damage(paths, damaged)
            yield [os.fspath(paths[index]) for index in damaged.order]
        finally:
            _restore(image, paths, damaged)

    def _paths(self, image: Image) -> list[Path]:
        folder = self._folder / image.seed.name
        count = len(image.seed.files)
        return [folder / f"{number}" / "image" for number in range(1, count + 1)]


def _damage(paths: list[Path], damaged: Damaged) -> None:
    for index, writes in damaged.writes.items():
        with paths[index].open("r+b") as file:
            for at, data in writes:
                os.pwrite(file.fileno(), data, at)
    for index, size in damaged.sizes.items():
        os.truncate(paths[index], size)


def _restore(image: Image, paths: list[Path], damaged: Damaged) -> None:
    for index, file in enumerate(image.seed.files):
        if index in damaged.sizes:
            file.write_to(paths[index])
        elif index in damaged.writes:
            with paths[index].open("r+b") as written:
                for at, data in damaged.writes[index]:
                    os.pwrite(written.fileno(), file.read(at, len(data)), at)
