"""The UUID tree: from the UUID of a subvolume to its number.

The UUID itself is the key: object id and offset are its two halves.
"""

import struct
from uuid import UUID

from btrfs.ondisk import constants
from btrfs.ondisk.fields import Bytes
from btrfs.ondisk.items.base import ItemData, SearchHeader

__all__ = ["UuidReceivedSubvolItem", "UuidSubvolItem"]


class UuidSubvolItem(ItemData, type=constants.UUID_KEY_SUBVOL, tree=constants.UUID_TREE_OBJECTID):
    """The subvolumes with a UUID, usually one.

    Under (first half UUID_KEY_SUBVOL second half).

    Attributes:
        uuid: The UUID that the key stands for.
        subvol_ids: Numbers of the subvolumes.
    """

    uuid: UUID
    subvol_ids: list[int]

    def __init__(self, header: SearchHeader, data: Bytes) -> None:
        self._load(header, data)
        self.uuid = UUID(bytes=struct.pack("<QQ", header.objectid, header.offset))
        count = len(data) // 8
        self.subvol_ids = list(struct.unpack_from(f"<{count}Q", data))


class UuidReceivedSubvolItem(
    UuidSubvolItem, type=constants.UUID_KEY_RECEIVED_SUBVOL, tree=constants.UUID_TREE_OBJECTID
):
    """The subvolumes that were received from the one with a UUID.

    Under (first half UUID_KEY_RECEIVED_SUBVOL second half).

    Attributes:
        uuid: The UUID of the subvolume that was sent.
        subvol_ids: Numbers of the subvolumes.
    """
