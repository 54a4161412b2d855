"""btrfs-atlas calculate: how much a new filesystem on devices of given sizes would hold."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from btrfs.errors import BtrfsError

if TYPE_CHECKING:
    from btrfs.space.filling import Filling

DESCRIPTION = """\
Calculate how much a btrfs filesystem made on devices of these sizes would hold, and what of them it
could not use."""

_PROFILES = (
    "single",
    "dup",
    "raid0",
    "raid1",
    "raid1c3",
    "raid1c4",
    "raid10",
    "raid5",
    "raid6",
)

# btrfs_min_dev_size() in btrfs-progs' mkfs/common.c: what mkfs.btrfs wants of each device.
_LEAST_MIXED = 16 << 20
_LEAST_AT_FIRST = 21 << 20
"""The first MiB, which is reserved, and the chunks that it makes before it makes others."""
_LEAST_OF_CHUNKS = {"single": (8 << 20, 8 << 20, 8 << 20), "dup": (16 << 20, 64 << 20, 128 << 20)}
"""By profile, what chunks for the system, for metadata and for data take of each device."""
_LEAST_OF_OTHER_CHUNKS = (8 << 20, 32 << 20, 64 << 20)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    from btrfs.space.mkfs import DATA_PER_METADATA

    names = ", ".join(_PROFILES)
    parser.add_argument(
        "-m", "--metadata", metavar="PROFILE", required=True, help=f"profile of metadata: {names}"
    )
    parser.add_argument(
        "-d", "--data", metavar="PROFILE", required=True, help="profile of data: one of the same"
    )
    parser.add_argument(
        "-M",
        "--mixed",
        action="store_true",
        help="data and metadata share their block groups, and so their profile",
    )
    parser.add_argument(
        "-r",
        "--ratio",
        metavar="N",
        type=_ratio,
        default=DATA_PER_METADATA,
        help="how many bytes of data there will be for each byte of metadata (%(default)s): few for"
        " many small files, 900 for large files only",
    )
    parser.add_argument("--json", action="store_true", help="write an object, exact to the byte")
    parser.add_argument(
        "sizes", metavar="SIZE", nargs="+", help="size of a device: 4TB (decimal), 1.5T, 500G, 1TiB"
    )


def run(args: argparse.Namespace) -> None:
    """Calculate, and show it."""
    plan = _plan(args)
    filling = _fill(plan)
    if args.json:
        _print_json(plan, filling)
    elif sys.stdout.isatty():
        _print_tables(plan, filling)
    else:
        print("\n".join(_text(plan, filling)))


class _Plan(NamedTuple):
    """A planned filesystem.

    Attributes:
        sizes: Bytes of each device, by devid.
        data_flags: Type and profile of data; of mixed block groups, with both types.
        metadata_flags: Type and profile of metadata.
        mixed: Whether data and metadata share block groups.
        ratio: Bytes of data to one of metadata.
    """

    sizes: dict[int, int]
    data_flags: int
    metadata_flags: int
    mixed: bool
    ratio: int

    @property
    def total(self) -> int:
        """Bytes of all devices."""
        return sum(self.sizes.values())


def _ratio(text: str) -> int:
    try:
        ratio = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if ratio <= 0:
        raise argparse.ArgumentTypeError(f"{ratio} is not above 0")
    return ratio


def _plan(args: argparse.Namespace) -> _Plan:
    """Return what the arguments describe.

    Raises:
        BtrfsError: They describe nothing that can be.
    """
    from btrfs.ondisk.constants import BLOCK_GROUP_DATA, BLOCK_GROUP_METADATA
    from btrfs.space.profile_rules import TooFewDevicesError, require_devices

    metadata, data = _profile(args.metadata), _profile(args.data)
    if args.mixed and metadata != data:
        raise BtrfsError(
            f"profile {args.metadata} for metadata and {args.data} for data in the same block"
            " groups",
            hint="with --mixed, give the same profile twice",
        )
    sizes = {devid: _size(text) for devid, text in enumerate(args.sizes, 1)}
    for option, flags in (("-m", metadata), ("-d", data)):
        try:
            require_devices(flags, len(sizes))
        except TooFewDevicesError as error:
            raise BtrfsError(
                str(error), hint=f"give more sizes, or choose another profile with {option}"
            ) from None
    _require_large_enough(sizes, args)
    both = BLOCK_GROUP_DATA | BLOCK_GROUP_METADATA
    return _Plan(
        sizes,
        data | (both if args.mixed else BLOCK_GROUP_DATA),
        metadata | (both if args.mixed else BLOCK_GROUP_METADATA),
        args.mixed,
        args.ratio,
    )


def _profile(name: str) -> int:
    from btrfs.ondisk.constants import BLOCK_GROUP_PROFILE_NAMES

    if name not in _PROFILES:
        raise BtrfsError(f"unknown profile {name}", hint=f"there are {', '.join(_PROFILES)}")
    flags = {word.lower(): flag for flag, word in BLOCK_GROUP_PROFILE_NAMES.items()}
    return flags.get(name, 0)


def _size(text: str) -> int:
    """Return the bytes of a device.

    Raises:
        BtrfsError: They are no size, or not that of a device.
    """
    try:
        size = _parsed_size(text)
    except ValueError:
        size = 0
    if size == 0:
        raise BtrfsError(
            f"invalid device size {text}",
            hint="sizes are numbers with a unit: 4TB, 1.5T, 500G, 1TiB",
        )
    if size >= 1 << 64:
        raise BtrfsError(
            f"device size {text} is too large", hint="a device of a btrfs has less than 16EiB"
        )
    return size


def _parsed_size(text: str) -> int:
    """Return the bytes that a size stands for, which can have decimals if it has a unit.

    Raises:
        ValueError: It is no size.
    """
    from btrfs.utils import parse_pretty_size

    match = re.fullmatch(r"(\d+\.\d+)([kKMGTPE]i?B?)", text)
    if match is None:
        return parse_pretty_size(text)
    # No float: it would not be exact to the byte.
    from fractions import Fraction

    number, unit = match.groups()
    return int(Fraction(number) * parse_pretty_size(f"1{unit}"))


def _require_large_enough(sizes: dict[int, int], args: argparse.Namespace) -> None:
    """Check that mkfs.btrfs would take devices of these sizes.

    Raises:
        BtrfsError: One is too small.
    """
    from btrfs.utils import pretty_size

    least = _LEAST_MIXED if args.mixed else _least_unmixed(args.metadata, args.data)
    for devid, size in sizes.items():
        if size < least:
            raise BtrfsError(
                f"device {devid} of {pretty_size(size)} is too small",
                hint=f"mkfs.btrfs wants {pretty_size(least)} or more of each device for this",
            )


def _least_unmixed(metadata: str, data: str) -> int:
    """Return the least bytes of a device where data and metadata have their own block groups."""
    system_bytes, metadata_bytes, _ = _LEAST_OF_CHUNKS.get(metadata, _LEAST_OF_OTHER_CHUNKS)
    _, _, data_bytes = _LEAST_OF_CHUNKS.get(data, _LEAST_OF_OTHER_CHUNKS)
    return _LEAST_AT_FIRST + system_bytes + metadata_bytes + data_bytes


def _fill(plan: _Plan) -> Filling:
    from btrfs.space import mkfs

    return mkfs.capacity(
        plan.sizes, plan.data_flags, plan.metadata_flags, metadata_per_data=1 / plan.ratio
    )


def _profile_str(flags: int) -> str:
    from btrfs.utils import space_profile_description

    return space_profile_description(flags)


def _unallocatable(filling: Filling) -> int:
    return sum(device.unallocated for device in filling.devices)


# As text, the same that btrfs-space-calculator has always written.


def _text(plan: _Plan, filling: Filling) -> Iterator[str]:
    from btrfs.utils import pretty_size

    yield f"Target metadata profile: {_profile_str(plan.metadata_flags)}"
    yield f"Target data profile: {_profile_str(plan.data_flags)}"
    yield f"Mixed block groups: {plan.mixed}"
    yield f"Total raw filesystem size: {pretty_size(plan.total)}"
    yield "Device sizes:"
    for devid, size in plan.sizes.items():
        yield f"  Device {devid}: {pretty_size(size)}"
    if plan.mixed:
        yield f"Estimated virtual space to use for metadata and data: {pretty_size(filling.data)}"
    else:
        yield f"Metadata to data ratio: 1:{plan.ratio}"
        yield f"Estimated virtual space to use for metadata: {pretty_size(filling.metadata)}"
        yield f"Estimated virtual space to use for data: {pretty_size(filling.writable)}"
    yield f"Total unallocatable raw amount: {pretty_size(_unallocatable(filling))}"
    yield "Unallocatable raw bytes per device:"
    for device in filling.devices:
        yield f"  Device {device.devid}: {pretty_size(device.unallocated)}"


# As JSON.


def _print_json(plan: _Plan, filling: Filling) -> None:
    import json

    described = {
        "metadata_profile": _profile_str(plan.metadata_flags),
        "data_profile": _profile_str(plan.data_flags),
        "mixed_groups": plan.mixed,
        "data_metadata_ratio": plan.ratio,
        "total": plan.total,
        "virtual_mixed" if plan.mixed else "virtual_data": filling.data,
        **({} if plan.mixed else {"virtual_metadata": filling.metadata}),
        "writable": filling.writable,
        "unallocatable": _unallocatable(filling),
        "devices": [
            {
                "devid": device.devid,
                "total": device.total_bytes,
                "unallocatable": device.unallocated,
            }
            for device in filling.devices
        ],
    }
    print(json.dumps(described, indent=2))


# As tables.


def _print_tables(plan: _Plan, filling: Filling) -> None:
    from btrfs.utils import pretty_size
    from btrfs_atlas import tables

    profiles = (
        f"data and metadata {_profile_str(plan.data_flags)}, mixed"
        if plan.mixed
        else f"data {_profile_str(plan.data_flags)}, metadata {_profile_str(plan.metadata_flags)}"
    )
    lines = [
        (
            f"{pretty_size(filling.writable)} of data can be written"
            f" ({profiles}; one byte of metadata for {plan.ratio} of data)."
        )
    ]
    if not plan.mixed:
        lines.append(
            f"{pretty_size(filling.data)} are for data then, and {pretty_size(filling.metadata)}"
            " for metadata."
        )
    lines.append(
        f"{pretty_size(_unallocatable(filling))} of {pretty_size(plan.total)} on devices cannot be"
        " used."
    )
    rows = [
        (
            str(device.devid),
            pretty_size(device.total_bytes),
            pretty_size(device.total_bytes - device.unallocated),
            pretty_size(device.unallocated),
            tables.bar(
                device.total_bytes - device.unallocated, device.total_bytes, full_is_bad=False
            ),
        )
        for device in filling.devices
    ]
    tables.show(
        tables.plain("\n".join(lines)),
        tables.table(
            "Devices",
            ("devid", "size", "usable", "unusable", "usable part"),
            rows,
            right=("devid", "size", "usable", "unusable"),
        ),
    )
