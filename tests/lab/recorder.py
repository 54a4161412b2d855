"""Files that write down in which order they are written and flushed, to be cut off at any point.

`recorded()` shows images as other files, through FUSE. Loop devices on those files work as on any
other, but every write that reaches one is appended to a log, and so is every flush. From the images
as they were before, and the log, `Recording` makes the images as a crash would have left them: all
that was flushed is there, and of what was not, a disk may have kept any part.

Each file has a server, a process of its own, `python -m tests.lab.recorder`: one that waits for the
kernel must not be the one that the kernel waits for. FUSE is spoken without a library. The root of
the filesystem is the file itself, so there are neither directories nor names, and a dozen of kinds
of requests is all (struct fuse_in_header and the following, include/uapi/linux/fuse.h).
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.lab.commands import CommandError, run

PAGE = 4096
LOG = "writes.log"
FLUSH = -1
"""In the log, the position of a flush."""

_RECORD = struct.Struct("<BqI")
_IN_HEADER = struct.Struct("<IIQQIIIHH")
_OUT_HEADER = struct.Struct("<IiQ")
_WRITE_IN_SIZE = 40
_LARGEST_WRITE = 256 << 10
_ROOT_INODE = 1
_PROTOCOL = (7, 31)
_FOPEN_KEEP_CACHE = 2

_FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _STATFS = 2, 3, 4, 14, 15, 16, 17
_RELEASE, _FSYNC, _FLUSH, _INIT, _INTERRUPT, _DESTROY = 18, 20, 25, 26, 36, 38


class Write(NamedTuple):
    """A write of the log.

    Attributes:
        number: Of the image.
        position: Where in it, in bytes.
        content: What was written.
    """

    number: int
    position: int
    content: bytes


class Part(NamedTuple):
    """A part of the log that ends with a flush.

    Attributes:
        writes: What was written since the flush before, of whatever image that was.
        flushed: Number of the image that is flushed then; None at the end of the log.
    """

    writes: list[Write]
    flushed: int | None


@dataclass(slots=True)
class Recording:
    """What was written to images, to be done again in steps from one flush to the next.

    Attributes:
        images: The images as they were before; the methods change them.
        parts: What was written.
        done: How many of the parts are done.
        pending: What these wrote and did not flush, so that the images do not have it.
    """

    images: list[Path]
    parts: list[Part] = field(default_factory=list)
    done: int = 0
    pending: list[Write] = field(default_factory=list)

    def step(self) -> None:
        """Go on to the next flush."""
        writes, flushed = self.parts[self.done]
        self.pending += writes
        self._write(write for write in self.pending if write.number == flushed)
        self.pending = [write for write in self.pending if write.number != flushed]
        self.done += 1

    @contextlib.contextmanager
    def crashed(self, choose: random.Random) -> Iterator[None]:
        """While the block runs, the images are as after a crash just before the next flush.

        Of the pages that were written and not flushed, some are there, and others are not.
        """
        pages = [
            Write(number, position + start, content[start : start + PAGE])
            for number, position, content in [*self.pending, *self.parts[self.done].writes]
            for start in range(0, len(content), PAGE)
        ]
        share = choose.random()
        kept = [page for page in pages if choose.random() < share]
        before = [self._read(page) for page in kept]
        self._write(kept)
        try:
            yield
        finally:
            self._write(before)

    def _read(self, place: Write) -> Write:
        """Return what the image holds where this would be written."""
        with self.images[place.number].open("rb") as file:
            content = os.pread(file.fileno(), len(place.content), place.position)
        return place._replace(content=content)

    def _write(self, writes: Iterable[Write]) -> None:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(image.open("r+b")) for image in self.images]
            for number, position, content in writes:
                os.pwrite(files[number].fileno(), content, position)


@contextlib.contextmanager
def recorded(images: Sequence[Path], folder: Path) -> Iterator[list[Path]]:
    """Show images as other files while the block runs; `LOG` in the folder records their writes."""
    (folder / LOG).touch()
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(_shown(number, image, folder))
            for number, image in enumerate(images)
        ]


def read_log(folder: Path, images: Sequence[Path]) -> Recording:
    """Return what was recorded, to be done again on images as they were before."""
    recording = Recording(list(images))
    writes: list[Write] = []
    unflushed = set()
    with (folder / LOG).open("rb") as file:
        while record := file.read(_RECORD.size):
            number, position, length = _RECORD.unpack(record)
            if position != FLUSH:
                writes.append(Write(number, position, file.read(length)))
                unflushed.add(number)
            elif number in unflushed:
                recording.parts.append(Part(writes, number))
                unflushed.remove(number)
                writes = []
    recording.parts.append(Part(writes, None))
    return recording


@contextlib.contextmanager
def _shown(number: int, image: Path, folder: Path) -> Iterator[Path]:
    """Run the server of an image."""
    shown = folder / f"shown{number}"
    shown.touch()
    words = [str(number), str(image), str(shown), str(folder / LOG)]
    server = subprocess.Popen([sys.executable, "-m", "tests.lab.recorder", *words])
    try:
        _wait_for_server(server, shown, image.stat().st_size)
        yield shown
    finally:
        with contextlib.suppress(CommandError):  # if it was never mounted
            run("umount", shown)
        server.wait(timeout=20)


def _wait_for_server(server: subprocess.Popen[bytes], shown: Path, size: int) -> None:
    for _ in range(2000):
        if os.path.ismount(shown) and shown.stat().st_size == size:
            return
        if server.poll() is not None:
            break
        time.sleep(0.01)
    raise CommandError(f"the recorder did not start: exit code {server.poll()}")


# The server.


@dataclass(slots=True)
class _Server:
    """Answers what the kernel asks about the file.

    Attributes:
        number: Of the image.
        image: Descriptor of the image, which is read and written.
        log: Descriptor of the log, open for appending.
        size: Bytes of the image.
    """

    number: int
    image: int
    log: int
    size: int

    def serve(self, device: int) -> None:
        """Answer until the file is unmounted."""
        while True:
            try:
                request = os.read(device, _LARGEST_WRITE + PAGE)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                if error.errno == errno.ENODEV:
                    return
                raise
            _, kind, unique, *_ = _IN_HEADER.unpack_from(request)
            if kind in (_FORGET, _INTERRUPT):
                continue
            try:
                answer, error_number = self._answer(kind, request[_IN_HEADER.size :]), 0
            except OSError as error:
                answer, error_number = b"", error.errno or errno.EIO
            header = _OUT_HEADER.pack(_OUT_HEADER.size + len(answer), -error_number, unique)
            os.write(device, header + answer)

    def _answer(self, kind: int, body: bytes) -> bytes:
        """Return the answer to a request. Others than these a loop device does not need."""
        answers: dict[int, Callable[[bytes], bytes]] = {
            _INIT: self._init,
            _GETATTR: self._attributes,
            _SETATTR: self._attributes,
            _OPEN: lambda _: struct.pack("<QII", 0, _FOPEN_KEEP_CACHE, 0),
            _READ: self._read,
            _WRITE: self._write,
            _FSYNC: self._flush,
            _STATFS: lambda _: struct.pack("<5Q3I28x", 0, 0, 0, 0, 0, PAGE, 255, PAGE),
        }
        if kind in (_RELEASE, _FLUSH, _DESTROY):
            return b""
        if kind not in answers:
            raise OSError(errno.ENOSYS, f"no answer to requests of kind {kind}")
        return answers[kind](body)

    def _init(self, body: bytes) -> bytes:
        """Agree on the version of the protocol (struct fuse_init_out)."""
        _, _, read_ahead = struct.unpack_from("<III", body)
        version = struct.pack("<II", *_PROTOCOL)
        return version + struct.pack("<IIHHII36x", read_ahead, 0, 16, 12, _LARGEST_WRITE, 1)

    def _attributes(self, _body: bytes) -> bytes:
        """Describe the file (struct fuse_attr_out), which stays as it is."""
        mode = stat.S_IFREG | 0o600
        numbers = (_ROOT_INODE, self.size, self.size // 512, 0, 0, 0)
        return struct.pack("<QII6Q10I", 3600, 0, 0, *numbers, 0, 0, 0, mode, 1, 0, 0, 0, PAGE, 0)

    def _read(self, body: bytes) -> bytes:
        """Read (struct fuse_read_in)."""
        _, position, length = struct.unpack_from("<QQI", body)
        return os.pread(self.image, length, position)

    def _write(self, body: bytes) -> bytes:
        """Write, and append it to the log (struct fuse_write_in)."""
        _, position, length = struct.unpack_from("<QQI", body)
        content = body[_WRITE_IN_SIZE : _WRITE_IN_SIZE + length]
        os.pwrite(self.image, content, position)
        os.write(self.log, _RECORD.pack(self.number, position, length) + content)
        return struct.pack("<II", length, 0)

    def _flush(self, _body: bytes) -> bytes:
        """Append to the log that all is to be kept that was written."""
        os.write(self.log, _RECORD.pack(self.number, FLUSH, 0))
        return b""


def main() -> None:
    """Serve an image. The arguments: its number, its path, the file to show it as, and the log."""
    number, image, shown, log = sys.argv[1:]
    device = os.open("/dev/fuse", os.O_RDWR)
    os.set_inheritable(device, True)
    options = f"fd={device},rootmode=100000,user_id=0,group_id=0"
    mount = ["mount", "-i", "-t", "fuse", "-o", options, "recorder", shown]
    subprocess.run(mount, check=True, close_fds=False)
    log_file = os.open(log, os.O_WRONLY | os.O_APPEND)
    size = Path(image).stat().st_size
    _Server(int(number), os.open(image, os.O_RDWR), log_file, size).serve(device)


if __name__ == "__main__":
    main()
