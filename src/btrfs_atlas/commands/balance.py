"""btrfs-atlas balance: move what is in the least used block groups, to get their space back."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from btrfs.errors import BtrfsError
from btrfs_atlas.arguments import size
from btrfs_atlas.targets import opened

if TYPE_CHECKING:
    from types import FrameType

    from btrfs.balance.planning import Selection, Step
    from btrfs.ctree import BlockGroupItem, FileSystem

DESCRIPTION = """\
Move the contents of block groups into the free space of others, the least used block group first,
so that its space becomes unallocated again, to be used for anything. One block group is moved after
the other, and what was moved is done: stop it with Ctrl-C at any time."""

_NOT_MOVED = 1

_METADATA_WARNING = """\
Warning: to balance metadata is rarely wise. The space that its block groups have left is what a
filesystem that is nearly full needs to go on at all, and once it is given to data, it is hard to
get back. There is little to gain from it, and it takes long."""

_SYSTEM_WARNING = """\
Warning: to balance system block groups is rarely wise. They hold nothing but the list of all block
groups, so they are small and there is next to nothing to gain."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    parser.add_argument(
        "path",
        metavar="PATH",
        help="a folder on the filesystem, which must be mounted; with --dry-run, a device or an"
        " image will do",
    )

    which = parser.add_argument_group("which block groups")
    which.add_argument(
        "-u",
        "--usage",
        metavar="PERCENT",
        type=int,
        default=100,
        help="only those of which at most so many per cent are used (default: 100, all of them)",
    )
    which.add_argument("--data", action="store_true", help="those that hold data (the default)")
    which.add_argument(
        "--metadata", action="store_true", help="those that hold metadata, which is rarely wise"
    )
    which.add_argument(
        "--system",
        action="store_true",
        help="those that hold the chunk tree, which is rarely wise either",
    )
    which.add_argument(
        "--devid", metavar="N", type=int, help="only those that use the device of this number"
    )

    how = parser.add_argument_group("how to move them")
    how.add_argument(
        "--order",
        choices=("least-used", "random", "vaddr"),
        default="least-used",
        help="the least used ones first (the default), by chance, or by virtual address",
    )
    how.add_argument(
        "--limit", metavar="N", type=int, help="stop when so many block groups were moved"
    )
    how.add_argument(
        "--target-free",
        metavar="SIZE",
        type=size,
        help="stop when so many bytes of the devices are unallocated (raw bytes, of all devices"
        " together, or of the one given with --devid), for instance 20GiB",
    )
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="move nothing; tell what would be moved in which order, and estimate how much that"
        " gives",
    )


def run(args: argparse.Namespace) -> int:
    """Move the block groups; return 1 if some of them did not move."""
    from btrfs.balance import planning, running

    selection = _selection(args)
    _warn(args)
    with opened([args.path]) as fs:
        if not args.dry_run:
            running.require_balanceable(fs)
        planning.require_device(fs, selection)
        selected = _load(fs, selection)
        if not selected:
            return 0
        if args.dry_run:
            return _dry_run(fs, selection, selected)
        return _balance(fs, selection, selected)


def _selection(args: argparse.Namespace) -> Selection:
    """Return what the options choose.

    Raises:
        BtrfsError: One of them is out of range.
    """
    from btrfs import BLOCK_GROUP_DATA, BLOCK_GROUP_METADATA, BLOCK_GROUP_SYSTEM
    from btrfs.balance.planning import Selection

    if not 0 <= args.usage <= 100:
        raise BtrfsError(f"usage {args.usage} out of range", hint="--usage takes 0 to 100")
    if args.limit is not None and args.limit < 1:
        raise BtrfsError(f"limit {args.limit} out of range", hint="--limit takes 1 or more")
    types = (
        (BLOCK_GROUP_DATA if args.data else 0)
        | (BLOCK_GROUP_METADATA if args.metadata else 0)
        | (BLOCK_GROUP_SYSTEM if args.system else 0)
    )
    return Selection(
        types=types or BLOCK_GROUP_DATA,
        used_pct=args.usage,
        devid=args.devid,
        order=args.order,
        limit=args.limit,
        target_free=args.target_free,
    )


def _warn(args: argparse.Namespace) -> None:
    if args.metadata:
        print(_METADATA_WARNING, file=sys.stderr)
    if args.system:
        print(_SYSTEM_WARNING, file=sys.stderr)


def _load(fs: FileSystem, selection: Selection) -> list[BlockGroupItem]:
    """Return the block groups that are selected, and say how many these are."""
    from btrfs.balance import planning

    print(
        f"Loading block group objects with used_pct <= {selection.used_pct} ...",
        end="",
        flush=True,
    )
    try:
        selected = planning.candidates(fs, selection)
    except BaseException:
        # What is said about it gets a line of its own.
        print(flush=True)
        raise
    print(f" found {len(selected)}", flush=True)
    if not selected:
        least = planning.least_used_pct(fs, selection)
        if least is not None and least > selection.used_pct:
            print(f"Nothing to do, least used block group has used_pct {least}")
        else:
            print("Nothing to do, there is no such block group")
    return selected


# Without doing it.


def _dry_run(fs: FileSystem, selection: Selection, selected: list[BlockGroupItem]) -> int:
    from btrfs.balance.estimate import estimate
    from btrfs.balance.planning import Action
    from btrfs.utils import pretty_size

    estimated = estimate(fs, selection, selected)
    for step in estimated.steps:
        would = f"Would balance block group vaddr {step.vaddr} used_pct {step.used_pct}"
        if step.action is Action.MOVED:
            print(would)
        elif step.action is Action.STUCK:
            print(f"{would}, but {step.reason}")
        else:
            print(_not_tried(step))
    actions = [step.action for step in estimated.steps]
    print(
        f"Estimate: {actions.count(Action.MOVED)} of {len(selected)} block groups would move; "
        f"{pretty_size(estimated.after)} unallocated ({_gain(estimated.gain)})"
    )
    return _NOT_MOVED if Action.STUCK in actions else 0


def _gain(gain: int) -> str:
    from btrfs.utils import pretty_size

    return f"{'-' if gain < 0 else '+'}{pretty_size(abs(gain))}"


def _not_tried(step: Step) -> str:
    """Return what happened to a block group instead of being moved."""
    from btrfs.balance.planning import Action

    block_group = f"block group vaddr {step.vaddr}"
    if step.action is Action.GONE:
        return f"Ignoring {block_group}, it is gone"
    verb = "Postponing" if step.action is Action.POSTPONED else "Ignoring"
    return f"{verb} {block_group} used_pct changed {step.before_pct} -> {step.used_pct}"


# Doing it.


def _balance(fs: FileSystem, selection: Selection, selected: list[BlockGroupItem]) -> int:
    from btrfs.balance.running import balance
    from btrfs_atlas.progress import ProgressBar

    report = _Report(fs, selection, selected)
    with _ending_signals() as received:
        try:
            with ProgressBar("balancing") as bar:
                for step in balance(
                    fs,
                    selection,
                    selected,
                    lambda copied: bar(report.done + copied, report.total),
                ):
                    report.tell(step)
        except KeyboardInterrupt:
            report.summarize("Interrupted, no balance is running any more. ")
            return 128 + received[0]
        except BtrfsError:
            report.summarize()
            raise
        report.summarize()
    return _NOT_MOVED if report.stuck else 0


class _Report:
    """Says what happens, and at the end what came of it.

    Attributes:
        done: Bytes of the block groups that are dealt with.
        total: Bytes of all that are selected.
        stuck: Addresses of those that did not move.
    """

    def __init__(
        self, fs: FileSystem, selection: Selection, selected: list[BlockGroupItem]
    ) -> None:
        from btrfs.balance.planning import unallocated

        self.done = 0
        self.total = sum(group.used for group in selected)
        self.stuck: list[int] = []
        self._count = len(selected)
        self._moved = 0
        self._fs = fs
        self._selection = selection
        self._before = unallocated(fs, selection.devid)
        self._begin = 0.0
        self._line_is_open = False
        self._line = ""
        # A progress bar on a terminal takes over standard output, to be drawn below the lines that
        # are printed. It can do that with whole lines only, and must not do it to a file or a pipe.
        self._whole_lines = sys.stdout.isatty() and sys.stderr.isatty()
        self._output: TextIO | None = None if self._whole_lines else sys.stdout

    def tell(self, step: Step) -> None:
        """Say what happened to a block group."""
        from btrfs.balance.planning import Action

        if step.action is Action.BEGIN:
            self._begin = time.monotonic()
            self._print(
                f"Balance block group vaddr {step.vaddr} used_pct {step.used_pct} ...", end=""
            )
            return
        if not self._line_is_open:
            self._print(_not_tried(step))
        elif step.action is Action.MOVED:
            self._moved += 1
            seconds = int(time.monotonic() - self._begin)
            self._print(f" duration {seconds} sec total {step.block_groups}")
        elif step.action is Action.STUCK:
            self.stuck.append(step.vaddr)
            self._print(f" did not move: {step.reason}")
        else:
            self._print(" is gone")
        if step.action is not Action.POSTPONED:
            self.done += step.used

    def summarize(self, begin: str = "") -> None:
        """Say on standard error what came of it.

        Args:
            begin: What to say before that.
        """
        from btrfs.balance.planning import unallocated
        from btrfs.utils import pretty_size

        if self._line_is_open:
            self._print("")
        now = unallocated(self._fs, self._selection.devid)
        parts = [f"moved {self._moved} of {self._count} block groups"]
        if self.stuck:
            vaddrs = ", ".join(map(str, self.stuck))
            parts.append(f"{len(self.stuck)} did not move (vaddr {vaddrs})")
        parts.append(f"{pretty_size(now)} unallocated ({_gain(now - self._before)})")
        wanted = self._selection.target_free
        if wanted is not None and now < wanted:
            parts.append(f"{pretty_size(wanted)} not reached")
        summary = "; ".join(parts)
        print(f"{begin}{summary[0].upper()}{summary[1:]}", file=sys.stderr)

    def _print(self, text: str, end: str = "\n") -> None:
        self._line_is_open = not end
        if self._whole_lines:
            self._line += text
            if end:
                print(self._line)
                self._line = ""
        else:
            print(text, end=end, file=self._output, flush=True)


@contextlib.contextmanager
def _ending_signals() -> Iterator[list[int]]:
    """Let the signals that end a program all do what Ctrl-C does; return which ones came.

    Only the first of them interrupts: what has to be said at the end is said.
    """
    received: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # nohup, for instance, has it ignored.
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
