"""Quota groups: how much space subvolumes use, and how much they may."""

from btrfs.ondisk import constants
from btrfs.ondisk.fields import key_objectid, key_offset, u64
from btrfs.ondisk.items.base import ItemData
from btrfs.ondisk.key import qgroup_str
from btrfs.ondisk.printing import as_flags, printed

__all__ = ["QgroupInfo", "QgroupLimit", "QgroupRelation", "QgroupStatus"]

# Simple quotas, new in Linux 6.7, added enable_gen.
_STATUS_SIZE_BEFORE_ENABLE_GEN = 32


class QgroupStatus(
    ItemData,
    type=constants.QGROUP_STATUS_KEY,
    tree=constants.QUOTA_TREE_OBJECTID,
    shortest=_STATUS_SIZE_BEFORE_ENABLE_GEN,
):
    """Whether quotas are on and right (struct btrfs_qgroup_status_item).

    In the quota tree, under (0 QGROUP_STATUS 0).

    Attributes:
        version: Always 1.
        generation: Generation of the last change.
        flags: QGROUP_STATUS_FLAG_ON and the like.
        rescan: Virtual address that a running scan has come to.
        enable_gen: Generation that simple quotas were enabled in.
    """

    version: u64
    generation: u64
    flags: u64
    flags_str = as_flags(constants.QGROUP_STATUS_FLAG_NAMES)
    rescan: u64
    enable_gen: u64


class QgroupInfo(ItemData, type=constants.QGROUP_INFO_KEY, tree=constants.QUOTA_TREE_OBJECTID):
    """How much a quota group uses (struct btrfs_qgroup_info_item).

    In the quota tree, under (0 QGROUP_INFO qgroup).

    Attributes:
        qgroupid: Id of the quota group, see :func:`btrfs.ctree.qgroup_level`.
        generation: Generation of the last change.
        rfer: Bytes that it refers to.
        rfer_cmpr: The same, compressed; always equal.
        excl: Bytes that only it refers to.
        excl_cmpr: The same, compressed; always equal.
    """

    qgroupid: key_offset
    qgroupid_str = printed(qgroup_str)
    generation: u64
    rfer: u64
    rfer_cmpr: u64
    excl: u64
    excl_cmpr: u64


class QgroupLimit(ItemData, type=constants.QGROUP_LIMIT_KEY, tree=constants.QUOTA_TREE_OBJECTID):
    """How much a quota group may use (struct btrfs_qgroup_limit_item).

    In the quota tree, under (0 QGROUP_LIMIT qgroup).

    Attributes:
        qgroupid: Id of the quota group.
        flags: Which of the limits are set: QGROUP_LIMIT_MAX_RFER and the like.
        max_rfer: Most bytes that it may refer to.
        max_excl: Most bytes that only it may refer to.
        rsv_rfer: Not used.
        rsv_excl: Not used.
    """

    qgroupid: key_offset
    qgroupid_str = printed(qgroup_str)
    flags: u64
    flags_str = as_flags(constants.QGROUP_LIMIT_FLAG_NAMES)
    max_rfer: u64
    max_excl: u64
    rsv_rfer: u64
    rsv_excl: u64


class QgroupRelation(
    ItemData, type=constants.QGROUP_RELATION_KEY, tree=constants.QUOTA_TREE_OBJECTID
):
    """Membership of a quota group in another, without a body.

    In the quota tree twice, once in each direction: under (qgroup QGROUP_RELATION other qgroup).
    The member is the one of the lower level.

    Attributes:
        qgroupid: Id of a quota group.
        other_qgroupid: Id of the one that it is a member of, or that is a member of it.
    """

    qgroupid: key_objectid
    qgroupid_str = printed(qgroup_str)
    other_qgroupid: key_offset
    other_qgroupid_str = printed(qgroup_str)
