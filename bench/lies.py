"""`python -m bench.lies`: put lies into filesystems, and see which judge finds which.

A lie changes an item, or a block, and makes checksums right: so that each block is sound by itself,
as a kernel with a fault or bad memory would write it. Each of the lies of `bench.lie_catalogue` is
put into a copy of a small filesystem. The judges are the check of this package, `btrfs check`, and,
if asked for, the kernel: it mounts the copy read-only, and reads all files. The tables go into
docs/check.md, between its two marks; what the kernel does is only printed.

It needs root, to make the filesystems, and takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

from bench.lie_catalogue import BASES, Lie, lies
from bench.peers import ROOT
from bench.redundancy import with_tables
from btrfs import FileSystem, check
from btrfs.errors import BtrfsError
from tests.lab.commands import CommandError
from tests.lab.damage import copy_image
from tests.lab.liefs import fill
from tests.lab.lies import Liar
from tests.lab.loopfs import attached_images, is_root, loop_filesystem, mounted_images

DOCUMENT = ROOT / "docs" / "check.md"

TITLE = "| lies | `btrfs-atlas check` | `btrfs check` |"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judges say about a lie.

    Attributes:
        base: Which filesystem it was put into.
        subject: What it is about.
        name: What was changed.
        kinds: What the check of this package found: how many of each kind.
        messages: Its messages.
        progs: Whether `btrfs check` found something; None if it was not asked.
        kernel: What the kernel did: fine, errors or refuses; None if it was not asked.
    """

    base: str
    subject: str
    name: str
    kinds: dict[str, int] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    progs: bool | None = None
    kernel: str | None = None


def main() -> int:
    """Put all lies into filesystems, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.lies", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where images are made for a while"
    )
    parser.add_argument("--kernel", action="store_true", help="ask the kernel, too")
    parser.add_argument("--only", default="", help="lies whose subject and name have this text")
    parser.add_argument("--json", type=Path, default=None, help="write all verdicts there, too")
    parser.add_argument("--print", action="store_true", help="print, and keep the document")
    options = parser.parse_args()
    if not is_root():
        print("Error: needs root, to attach loop devices and to mount", file=sys.stderr)
        return 1
    told = [lie for lie in lies() if options.only in f"{lie.base} {lie.subject}: {lie.name}"]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        make({lie.base for lie in told}, Path(folder))
        with ProcessPoolExecutor(2) as pool:
            found = pool.map(partial(_judged, Path(folder)), range(len(told)), told, chunksize=4)
            verdicts = [verdict for verdict in found if verdict is not None]
        if options.kernel:
            # Copies of a filesystem are all the same to the kernel: one at a time.
            verdicts = [_with_kernel(Path(folder), told, verdict) for verdict in verdicts]
    if options.json:
        options.json.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1))
    if options.print or options.only:
        for verdict in verdicts:
            print(verdict.base, verdict.subject, verdict.name, sep=": ")
            print("   ", verdict.kinds, f"btrfs check: {verdict.progs}, kernel: {verdict.kernel}")
            print(*(f"      {message}\n" for message in verdict.messages), sep="", end="")
    else:
        DOCUMENT.write_text(with_tables(DOCUMENT.read_text(), "\n".join(tables(verdicts))))
    return 0


def make(names: Iterable[str], folder: Path) -> None:
    """Make the filesystems that are asked for."""
    for name in names:
        with loop_filesystem(folder / name, **BASES[name]) as made:
            fill(made.mountpoint)
            if name == "quotas":
                made.btrfs("quota", "enable", made.mountpoint)
                made.btrfs("quota", "rescan", "-w", made.mountpoint)
            made.sync()


def _copies(folder: Path, lie: Lie, target: Path) -> list[Path]:
    """Copy the images of a filesystem, and put a lie into the copy."""
    target.mkdir(exist_ok=True)
    copies = []
    for image in sorted((folder / lie.base).glob("disk*.img")):
        copies.append(target / image.name)
        copy_image(image, copies[-1])
    lie.tell(Liar(copies))
    return copies


def _judged(folder: Path, number: int, lie: Lie) -> Verdict | None:
    """Return what the check and `btrfs check` say about a lie; None if it cannot be told."""
    target = folder / f"copy{number}"
    try:
        images = _copies(folder, lie, target)
    except (LookupError, AssertionError, ValueError, StopIteration):
        # There is no such item, its leaf has no room, or the lie would be none.
        _remove(target)
        return None
    kinds: Counter[str] = Counter()
    messages = []
    try:
        with FileSystem(images, source="unmounted", on_error="skip") as fs:
            for checked in check.check(fs):
                kinds += checked.totals
                messages += [f"{one.kind}: {one}" for one in checked.findings]
    except (BtrfsError, OSError) as error:
        kinds["refused"] += 1
        messages.append(f"{type(error).__name__}: {error}")
    progs = _asked_progs(images)
    _remove(target)
    return Verdict(lie.base, lie.subject, lie.name, dict(kinds), messages[:40], progs)


def _asked_progs(images: Sequence[Path]) -> bool:
    """Return whether `btrfs check` finds something."""
    if len(images) == 1:
        return _fails("btrfs", "check", "--readonly", images[0])
    with attached_images(images) as devices:
        return _fails("btrfs", "check", "--readonly", devices[0])


def _fails(*words: str | Path) -> bool:
    try:
        return subprocess.run(words, capture_output=True, timeout=60, check=False).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _with_kernel(folder: Path, told: Sequence[Lie], verdict: Verdict) -> Verdict:
    place = (verdict.base, verdict.subject, verdict.name)
    lie = next(lie for lie in told if (lie.base, lie.subject, lie.name) == place)
    target = folder / "kernel"
    images = _copies(folder, lie, target)
    try:
        with mounted_images(images, folder / "mnt", "ro") as mounted:
            script = 'find "$0" -ls && find "$0" -type f -exec cat {} +'
            words = ("timeout", "20", "sh", "-c", script, mounted.mountpoint)
            kernel = "errors" if _fails(*words) else "fine"
    except CommandError:
        kernel = "refuses"
    _remove(target)
    return Verdict(**(asdict(verdict) | {"kernel": kernel}))


# The tables.


def tables(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield the lines of the tables: a sum, and the lies by subject and verdict."""
    ours = sum(bool(verdict.kinds) for verdict in verdicts)
    progs = sum(bool(verdict.progs) for verdict in verdicts)
    only_ours = sum(bool(verdict.kinds) and not verdict.progs for verdict in verdicts)
    only_progs = sum(bool(verdict.progs) and not verdict.kinds for verdict in verdicts)
    yield (
        f"Of {len(verdicts)} lies, `btrfs-atlas check` finds {ours}, {only_ours} of them alone, and"
        f" `btrfs check` finds {progs}, {only_progs} of them alone."
    )
    for (base, subject), group in groupby(verdicts, lambda one: (one.base, one.subject)):
        yield from ("", f"**{subject}** ({base} filesystem)", "", TITLE, "|---" * 3 + "|")
        rows: dict[tuple[str, str], list[str]] = {}
        for one in group:
            kinds = ", ".join(sorted(one.kinds)) or "-"
            rows.setdefault((kinds, "reports" if one.progs else "-"), []).append(one.name)
        for (kinds, word), names in sorted(rows.items()):
            yield f"| {'; '.join(names)} | {kinds} | {word} |"
    yield ""


if __name__ == "__main__":
    sys.exit(main())
