"""Subvolumes with a history: nested, moved, changed after snapshots, sent, received and deleted."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

from btrfs import FileSystem, ioctl
from tests.lab.commands import CommandError, run
from tests.lab.populate import PAGE
from tests.lab.shapes import RENAME_EXCHANGE, rename
from tests.lab.sharing import change, clone_range, overwrite, sync, write_in_place


def make_history(root: Path, seed: int = 1, files: int = 300) -> None:
    """Fill a mounted filesystem with subvolumes that came from each other in all ways."""
    choose = random.Random(seed)
    folder = root / "history"
    folder.mkdir()
    home = folder / "home"
    make_home(home, choose, files)
    sync(root)
    nest(home)
    for number in range(3):
        snapshot(home, folder / f"readonly{number}", "-r")
        snapshot(home, folder / f"writable{number}")
        change_directories(home, choose, number)
        change(home, choose)
        change_directories(folder / f"writable{number}", choose, number + 10)
        cut_in_snapshot(folder / f"writable{number}")
        sync(root)
    snapshot(folder / "writable1", folder / "of a snapshot")
    change(folder / "of a snapshot", choose)
    send_increments(folder, 3)
    move_subvolumes(folder)
    delete_subvolumes(folder)
    defragment(folder / "writable0")
    sync(root)


def make_home(home: Path, choose: random.Random, files: int) -> None:
    """Make a subvolume with what `change()` and others of this module expect in it."""
    run("btrfs", "subvolume", "create", home)
    (home / "files").mkdir()
    (home / "names").mkdir()
    (home / "compressed").mkdir()
    run("btrfs", "property", "set", home / "compressed", "compression", "zstd")
    for number in range(files):
        name = home / "files" / f"{number}"
        name.write_bytes(choose.randbytes((0, 50, 1500, 3 * PAGE, 9 * PAGE)[number % 5]))
        if number % 4 == 0:
            os.link(name, home / f"names/link to {number}")
        (home / "names" / f"{number} {'long ' * (number % 30)}").touch()
    (home / "compressed" / "zstd").write_bytes(b"again and again " * 30_000)
    (home / "large").write_bytes(choose.randbytes(300 * PAGE))
    write_in_place(home / "in place", choose)


def nest(home: Path) -> None:
    """Make subvolumes inside of a subvolume, one in another; snapshots do not have them."""
    for place in ("nested", "nested/deeper", "compressed/nested"):
        run("btrfs", "subvolume", "create", home / place)
        (home / place / "file").write_bytes(b"n" * 2 * PAGE)


def change_directories(folder: Path, choose: random.Random, number: int) -> None:
    """Rename, exchange, delete and make names in a directory of several leaves."""
    names = sorted((folder / "names").iterdir())
    choose.shuffle(names)
    for path in names[:20]:
        path.rename(path.with_name(f"{number} {path.name[:200]}"))
    for path in names[20:40]:
        path.unlink()
    for one, other in zip(names[40:50], names[50:60], strict=True):
        rename(one, other, RENAME_EXCHANGE)
    for index in range(20):
        (folder / "names" / f"new {number} {index}").write_text("new")


def cut_in_snapshot(folder: Path) -> None:
    """Cut a file that a snapshot shares, extend it, and share its rest with a new one."""
    os.truncate(folder / "large", 123_456)
    os.truncate(folder / "large", 400 * PAGE)
    overwrite(folder / "large", 350 * PAGE, b"far behind the end")
    clone_range(folder / "large", folder / "rest", 2 * PAGE, 20 * PAGE)


def send_increments(folder: Path, count: int) -> None:
    """Send the read-only snapshots, each on top of the one before, and receive them."""
    target = folder / "received"
    target.mkdir()
    for number in range(count):
        parent: list[str | Path] = ["-p", folder / f"readonly{number - 1}"] if number else []
        transfer([*parent, folder / f"readonly{number}"], target)
    snapshot(target / "readonly1", target / "writable")
    (target / "writable" / "changed").write_text("changed after it was received")


def transfer(words: list[str | Path], target: Path) -> None:
    """Send with these arguments, and receive into a directory."""
    with subprocess.Popen(
        ["btrfs", "send", "--quiet", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as sender:
        receiver = subprocess.run(
            ["btrfs", "receive", "--quiet", target],
            stdin=sender.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
    if sender.returncode or receiver.returncode:
        raise CommandError(f"send {sender.returncode}, receive: {receiver.stderr}")


def move_subvolumes(folder: Path) -> None:
    """Rename a subvolume, move one into another, and make one the default."""
    (folder / "writable2").rename(folder / "renamed")
    (folder / "of a snapshot").rename(folder / "home" / "nested" / "moved here")
    with FileSystem(folder / "renamed") as fs:
        tree = ioctl.ino_lookup(fs.fd).treeid
    run("btrfs", "subvolume", "set-default", str(tree), folder)


def delete_subvolumes(folder: Path) -> None:
    """Delete a snapshot, a received one, and one by rmdir whose directory held another."""
    run("btrfs", "subvolume", "delete", folder / "readonly0", folder / "received" / "readonly2")
    (folder / "home" / "compressed" / "nested" / "file").unlink()
    (folder / "home" / "compressed" / "nested").rmdir()


def defragment(folder: Path) -> None:
    """Write files of a subvolume anew, compressed; they share no more with others."""
    run("btrfs", "filesystem", "defragment", "-r", "-czstd", folder / "files")
    run("btrfs", "filesystem", "defragment", "-f", folder / "large")


def snapshot(source: Path, target: Path, *options: str) -> None:
    """Make a snapshot of a subvolume."""
    run("btrfs", "subvolume", "snapshot", *options, source, target)
