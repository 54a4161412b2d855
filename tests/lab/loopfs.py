"""Real btrfs filesystems on loop devices over sparse files.

`loop_filesystem()` makes the files, attaches them, runs mkfs.btrfs and mounts the result; whatever
happens inside the `with` block, it is unmounted and detached at the end. The images stay, to be
read as unmounted filesystems. What is written to them comes from the kernel.

Nothing here knows about pytest: benchmarks and scripts build their filesystems with it too.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.commands import Argument, CommandError, run

CAP_SYS_ADMIN = 1 << 21
"""The capability to mount, of those in capability.h of the kernel."""

PROGRAMS = ("mkfs.btrfs", "btrfs", "btrfstune", "btrfs-image", "losetup", "mount", "umount")
RUNTIME_FEATURES = ("quota", "free-space-tree")
"""Features that mkfs.btrfs before 6.3 takes with -R, not with -O."""

UNMOUNT_TRIES = 20


@dataclass(slots=True)
class LoopFilesystem:
    """A btrfs whose devices are image files, and the state that it is in.

    Attributes:
        images: The image files, in the order of their devids.
        mountpoint: Where it is mounted, whenever it is.
        devices: The loop devices of the images, while they are attached.
        mounted: Whether it is mounted now.
    """

    images: list[Path]
    mountpoint: Path
    devices: list[str] = field(default_factory=list)
    mounted: bool = False

    def attach(self) -> list[str]:
        """Attach a loop device to every image that has none, and return the devices."""
        for image in self.images[len(self.devices) :]:
            self.devices.append(run("losetup", "--find", "--show", image).strip())
        return self.devices

    def mount(self, options: str = "") -> Path:
        """Attach and mount the filesystem, with the given mount options, and return where."""
        self.attach()
        members = [f"device={device}" for device in self.devices[1:]]
        words = [word for word in (options, *members) if word]
        self.mountpoint.mkdir(parents=True, exist_ok=True)
        run(
            *("mount", "-t", "btrfs"),
            *(("-o", ",".join(words)) if words else ()),
            *(self.devices[0], self.mountpoint),
        )
        self.mounted = True
        return self.mountpoint

    def remount(self, options: str) -> None:
        """Change the mount options of the mounted filesystem."""
        run("mount", "-o", f"remount,{options}", self.mountpoint)

    def unmount(self) -> None:
        """Unmount it if it is mounted; the loop devices stay attached."""
        if not self.mounted:
            return
        for _ in range(UNMOUNT_TRIES):
            try:
                run("umount", self.mountpoint)
                break
            except CommandError:
                time.sleep(0.1)
        else:
            # A process still has a file open there. Detach what can be detached all the same.
            run("umount", "--lazy", self.mountpoint)
        self.mounted = False

    def detach(self) -> None:
        """Unmount it and detach all loop devices; the images stay."""
        self.unmount()
        while self.devices:
            device = self.devices.pop()
            # The kernel remembers the members of every filesystem that it has seen, by device path;
            # the next filesystem on the same loop device must not meet that memory.
            with contextlib.suppress(CommandError):
                run("btrfs", "device", "scan", "--forget", device)
            detach_loop(device)

    def add_image(self, size: str | int) -> str:
        """Make one more image of this size, attach it, and return its device.

        It is not part of the filesystem until `btrfs device add` or `btrfs replace` make it so.
        """
        image = self.images[0].with_name(f"disk{len(self.images) + 1}.img")
        make_sparse(image, size)
        self.images.append(image)
        return self.attach()[-1]

    def replace(self, devid: int, size: str) -> None:
        """Replace a device by a new one of this size; its image takes the place of the old one."""
        new = self.add_image(size)
        run("btrfs", "replace", "start", "-B", str(devid), new, self.mountpoint)
        old = self.devices[devid - 1]
        self.images[devid - 1] = self.images.pop()
        self.devices[devid - 1] = self.devices.pop()
        detach_loop(old)

    def sync(self) -> None:
        """Commit everything, so that the images hold what the mounted filesystem shows."""
        run("btrfs", "filesystem", "sync", self.mountpoint)

    def copy_images(self, folder: Path) -> list[Path]:
        """Copy the images as they are now, as if the power had gone; return the copies.

        Of a mounted filesystem, the copies hold what a crash would leave: orphans of open files,
        the log tree after an fsync, a balance half done.
        """
        folder.mkdir(parents=True, exist_ok=True)
        copies = []
        for image in self.images:
            run("cp", "--sparse=always", image, folder / image.name)
            copies.append(folder / image.name)
        return copies

    def tune(self, *options: str) -> None:
        """Run btrfstune on the unmounted filesystem (`-m` or `-M UUID` change the fsid)."""
        run("btrfstune", "-f", *options, self.attach()[0])

    def dump(self, target: Path, compression: int = 9) -> Path:
        """Dump the metadata of the unmounted filesystem with btrfs-image; return the target."""
        run("btrfs-image", f"-c{compression}", self.attach()[0], target)
        return target

    def btrfs(self, *words: Argument) -> str:
        """Run the program `btrfs` with these arguments, and return what it prints."""
        return run("btrfs", *words)


def make_sparse(path: Path, size: str | int) -> None:
    """Make a file of this size that takes no space."""
    with path.open("wb") as file:
        file.truncate(parse_size(size))


def parse_size(size: str | int) -> int:
    """Return the bytes of a size such as '1G' or '512M'."""
    if isinstance(size, int):
        return size
    match = re.fullmatch(r"(\d+)([KMGT]?)", size)
    if match is None:
        raise ValueError(f"not a size: {size!r}")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2]]


def mkfs(
    devices: Sequence[Argument],
    *,
    data: str | None = None,
    metadata: str | None = None,
    csum: str | None = None,
    nodesize: int | None = None,
    sectorsize: int | None = None,
    mixed: bool = False,
    label: str | None = None,
    features: Sequence[str] = (),
) -> None:
    """Make a filesystem on the devices with mkfs.btrfs; None leaves a choice to it."""
    runtime = [name for name in features if name.lstrip("^") in RUNTIME_FEATURES]
    other = [name for name in features if name not in runtime]
    options: dict[str, str | int | None] = {
        "--data": data,
        "--metadata": metadata,
        "--csum": csum,
        "--nodesize": nodesize,
        "--sectorsize": sectorsize,
        "--label": label,
        "--features": ",".join(other) or None,
        "--runtime-features": ",".join(runtime) or None,
    }
    words = [
        word for name, value in options.items() if value is not None for word in (name, str(value))
    ]
    if mixed:
        words.append("--mixed")
    run("mkfs.btrfs", "--quiet", "--force", *words, *devices)


@contextlib.contextmanager
def loop_filesystem(
    folder: Path,
    *,
    devices: int = 1,
    size: str | int = "1G",
    data: str | None = None,
    metadata: str | None = None,
    csum: str | None = None,
    nodesize: int | None = None,
    sectorsize: int | None = None,
    mixed: bool = False,
    label: str | None = None,
    features: Sequence[str] = (),
    mount: bool = True,
    mount_options: str = "",
) -> Iterator[LoopFilesystem]:
    """Make a btrfs on loop devices, mounted unless `mount` is false; clean up at the end.

    Args:
        folder: Where the images `disk1.img` ... and the mount point `mnt` are made.
        devices: How many images.
        size: Of each of them, as '1G' or in bytes.
        data: Profile of data, as mkfs.btrfs names it.
        metadata: Profile of metadata.
        csum: Checksum type: crc32c, xxhash, sha256 or blake2.
        nodesize: Bytes of a tree block.
        sectorsize: Bytes of a sector.
        mixed: Data and metadata in the same block groups.
        label: Of the filesystem.
        features: To switch on, or off with a leading ^; e.g. 'free-space-tree', '^skinny-metadata'.
        mount: Whether to mount it.
        mount_options: For that first mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = [folder / f"disk{number}.img" for number in range(1, devices + 1)]
    for image in images:
        make_sparse(image, size)
    filesystem = LoopFilesystem(images, folder / "mnt")
    with attached(filesystem):
        mkfs(
            filesystem.devices,
            data=data,
            metadata=metadata,
            csum=csum,
            nodesize=nodesize,
            sectorsize=sectorsize,
            mixed=mixed,
            label=label,
            features=features,
        )
        if mount:
            filesystem.mount(mount_options)
        yield filesystem


def detach_loop(device: str, tries: int = 100) -> None:
    """Detach a loop device, and wait until it is: that takes until no program has it open.

    `btrfs` opens all block devices of the machine to look for members of a filesystem.
    """
    run("losetup", "--detach", device)
    state = Path("/sys/block", Path(device).name, "loop")
    while tries and state.exists():
        time.sleep(0.01)
        tries -= 1


@contextlib.contextmanager
def attached(filesystem: LoopFilesystem) -> Iterator[LoopFilesystem]:
    """Attach a filesystem's images; unmount and detach at the end, whatever happened."""
    try:
        filesystem.attach()
        yield filesystem
    finally:
        filesystem.detach()


@contextlib.contextmanager
def mounted_images(
    images: Sequence[Path], mountpoint: Path, options: str = ""
) -> Iterator[LoopFilesystem]:
    """Mount a filesystem that existing images hold; unmount and detach it at the end."""
    with attached(LoopFilesystem(list(images), mountpoint)) as filesystem:
        filesystem.mount(options)
        yield filesystem


@contextlib.contextmanager
def attached_images(images: Sequence[Path]) -> Iterator[list[str]]:
    """Attach loop devices to existing images, without mounting; detach them at the end."""
    with attached(LoopFilesystem(list(images), images[0].with_name("mnt"))) as filesystem:
        yield filesystem.devices


def is_root() -> bool:
    """Tell whether this process may attach and mount: root that has kept its capabilities."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return os.geteuid() == 0 and bool(effective & CAP_SYS_ADMIN)
