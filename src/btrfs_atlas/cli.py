"""The command line: subcommands, and how all of them report errors.

A subcommand that cannot do its work says why in one line, with a hint where there is one, and the
program exits with 1. Interrupted it exits with 130, and with 141 when the reader of its output is
gone, both without a word, as the shell reports for programs that a signal ends.
"""

from __future__ import annotations

import argparse
import errno
import gc
import io
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

from btrfs_atlas.targets import one_line

# numpy's linear algebra, which is not used here, would start threads as soon as it is imported;
# that takes as long as to draw a small picture.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_COMMANDS = {
    "balance": "move block groups to get unallocated space, the least used first",
    "calculate": "calculate how much a new filesystem on given devices would hold",
    "check": "check a filesystem that is not mounted, and tell what is wrong with it",
    "compression": "tell what compression saves, in all or in some directories and files",
    "du": "show which directories and files take the space",
    "duplicates": "show what is stored more than once, by its checksums",
    "export-html": "write a map to walk through in a browser, as a single file",
    "heatmap": "draw what is allocated where, and how full it is",
    "orphans": "follow how deleted subvolumes are removed",
    "overview": "show the state of a filesystem on one page, and what to do about it",
    "search": "show items of metadata: block groups, extents, files, free space",
    "serve": "show a map to walk through in a browser, down to a single sector",
    "subvolumes": "tell what each subvolume uses, and what deleting some would free",
    "usage": "report how much is allocated and used, and how much is left",
}
"""The subcommands and what they are for; each is a module of btrfs_atlas.commands, with _ for -."""

_WITHOUT_SUBCOMMAND = "overview"
"""The subcommand that is meant where there is a target, but no subcommand."""

_FAILED = 1
_INTERRUPTED = 130
_BROKEN_PIPE = 141

_HINTS = {
    errno.EPERM: "reading a mounted filesystem takes root rights; try it with sudo",
    errno.EACCES: "you may not read or write there; try it with sudo, or choose another place",
    errno.ENOENT: "check the spelling, and whether the file or folder is there",
    errno.ENOTDIR: "name a folder, or a file in one",
    errno.ENOTTY: "is it on a btrfs filesystem?",
    errno.ENOSPC: "make room, or write the output to another place",
    errno.EISDIR: "name a file",
    errno.EROFS: "write the output to another place",
}
"""What to do about errors of the kernel."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run btrfs-atlas with these arguments, by default the program's own; return its exit code."""
    parser = _Parser(
        prog="btrfs-atlas",
        description="Look inside btrfs filesystems, mounted or not.",
        epilog="btrfs-atlas SUBCOMMAND --help tells more about each. btrfs-atlas TARGET does the"
        " same as btrfs-atlas overview TARGET.",
    )
    parser.add_argument("--version", action=_Version)
    subparsers = parser.add_subparsers(
        dest="command", metavar="SUBCOMMAND", required=True, title="subcommands"
    )
    words = list(sys.argv[1:] if argv is None else argv)
    wanted = next((word for word in words if not word.startswith("-")), None)
    if wanted is not None and wanted not in _COMMANDS:
        if wanted == words[0] and _is_misspelt(wanted):
            _complain(
                f"{wanted} is neither a subcommand nor a file or folder", _hint_of_nearest(wanted)
            )
            return _FAILED
        words.insert(0, _WITHOUT_SUBCOMMAND)
        wanted = _WITHOUT_SUBCOMMAND
    for name, summary in _COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary)
        # Only the one that is wanted is imported: the program starts as fast with six as with one.
        if name == wanted:
            _complete(subparser, name)
            parser.set_defaults(failed=subparser.get_default("failed"))
    return _run(parser, words)


def _is_misspelt(word: str) -> bool:
    """Return whether a word is certainly no target. An empty one is left to the check of these."""
    try:
        os.lstat(word)
    except (FileNotFoundError, NotADirectoryError):
        return word != ""
    except OSError:
        # It may be there, in a folder that must not be read.
        pass
    return False


def _hint_of_nearest(word: str) -> str:
    from difflib import get_close_matches

    for name in get_close_matches(word, _COMMANDS, 1):
        return f"did you mean btrfs-atlas {name}?"
    return "btrfs-atlas --help lists the subcommands"


def _alias(prog: str, name: str, argv: Sequence[str] | None = None) -> int:
    """Run a subcommand as a program of its own; return its exit code."""
    parser = _Parser(prog=prog)
    parser.add_argument("--version", action=_Version)
    _complete(parser, name)
    return _run(parser, argv)


# The names that people know.
balance = partial(_alias, "btrfs-balance-least-used", "balance")
calculate = partial(_alias, "btrfs-space-calculator", "calculate")
heatmap = partial(_alias, "btrfs-heatmap", "heatmap")
orphans = partial(_alias, "btrfs-orphan-cleaner-progress", "orphans")
search = partial(_alias, "btrfs-search-metadata", "search")
usage = partial(_alias, "btrfs-usage-report", "usage")


def _complete(parser: argparse.ArgumentParser, name: str) -> None:
    """Give a parser what a subcommand takes, and what runs it."""
    command = import_module(f"btrfs_atlas.commands.{name.replace('-', '_')}")
    parser.description = command.DESCRIPTION
    command.add_arguments(parser)
    parser.set_defaults(run=command.run, failed=getattr(command, "FAILED", _FAILED))


class _Parser(argparse.ArgumentParser):
    """Complains as the programs do about everything else."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(self._words, namespace)

    def error(self, message: str) -> NoReturn:
        # argparse looks for what is missing before it says what it does not know, but where an
        # option is misspelled, that is what matters.
        if message.startswith("the following arguments are required") and (
            unknown := next(filter(self._is_unknown_option, self._words), None)
        ):
            message = f"unrecognized arguments: {unknown}"
        _complain(message, f"{self.prog} --help lists the options")
        self.exit(self.get_default("failed") or _FAILED)

    def _is_unknown_option(self, word: str) -> bool:
        """Return whether a word looks like an option, but is none, not even a shortened one."""
        known = self._option_string_actions
        if word.startswith("--"):
            name = word.partition("=")[0]
            return not any(option.startswith(name) for option in known)
        return word.startswith("-") and word[1:2].isalpha() and word[:2] not in known


class _Version(argparse.Action):
    """Prints the version; finds it out only then, as that takes a while."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(parser.prog, version("btrfs-atlas"))
        parser.exit()


def _run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    # Imports make up most of the time of a small picture, and looking for garbage a tenth of that.
    # There is next to none of the kind that only the collector finds.
    gc.disable()
    # Names of files are bytes, of which some are no text in the encoding of the output.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        args = parser.parse_args(argv)
        run: Callable[[argparse.Namespace], int | None] = args.run
        status = run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # What is left in the buffer would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except Exception as error:
        if not _is_expected(error):
            raise
        _complain(*_explain(error))
        return int(args.failed)
    finally:
        gc.enable()
    return status or 0


def _is_expected(error: Exception) -> bool:
    """Whether an error is about what the program was given, and not a fault in the program."""
    from btrfs.errors import BtrfsError
    from heatmap import HeatmapError

    return isinstance(error, (BtrfsError, HeatmapError, OSError, MemoryError))


def _explain(error: Exception) -> tuple[str, str | None]:
    """Return what went wrong, and what could be done about it."""
    from btrfs.errors import CorruptError

    hint = getattr(error, "hint", None)
    if isinstance(error, CorruptError):
        return str(error), hint or "this is damage; btrfs-atlas check tells how much there is"
    if isinstance(error, MemoryError):
        return "not enough memory", "choose a smaller --order"
    if isinstance(error, OSError) and error.strerror:
        message = error.strerror
        if error.filename is not None:
            message = f"{os.fsdecode(error.filename)}: {message}"
        return message, hint or _HINTS.get(error.errno or 0)
    return str(error), hint


def _complain(message: str, hint: str | None) -> None:
    line = one_line(message)
    print(f"Error: {line}. Hint: {hint}" if hint else f"Error: {line}", file=sys.stderr)
