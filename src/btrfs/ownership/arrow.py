"""What a scan has read as Arrow tables, to be stored or asked with other tools; needs pyarrow.

Numbers of sets of roots stand for the trees that use something: the table `sets` says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from btrfs.errors import BtrfsError
from btrfs.ownership.root_sets import EMPTY

if TYPE_CHECKING:
    import pyarrow as pa

    from btrfs.ownership.names import LinkRows
    from btrfs.ownership.scanning import Scan

__all__ = ["arrow_tables"]


def arrow_tables(scanned: Scan) -> dict[str, pa.Table]:
    """Return the tables of a scan by their names.

    * ``sets``: set_id, trees (a list of numbers), data and metadata (bytes on disk);
    * ``blocks``: vaddr and set_id of each tree block;
    * ``extents``: the columns of DataExtents;
    * ``references``: the columns of References, and set_id instead of leaf;
    * ``inline``, ``inodes``: the columns of InlineRows and InodeRows, and set_id instead of leaf;
    * ``links``: inum, parent, name (bytes) and set_id.

    The last two are empty if the scan did not read names.

    Columns are not copied where Arrow can use them as they are.

    Raises:
        BtrfsError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.compute
    except ImportError:
        raise BtrfsError(
            "pyarrow is not installed", hint="pip install 'btrfs-atlas[arrow]' brings it"
        ) from None
    extents, references = scanned.extents, scanned.references
    tables = {
        "sets": _sets(scanned),
        "blocks": {"vaddr": scanned.blocks.vaddr, "set_id": scanned.blocks.set_id},
        "extents": {name: getattr(extents, name) for name in extents.__dataclass_fields__},
        "references": _by_set(
            scanned, {name: getattr(references, name) for name in references.__dataclass_fields__}
        ),
        "inline": _by_set(scanned, scanned.inline._asdict()),
        "inodes": _by_set(scanned, scanned.inodes._asdict()),
        "links": _links(scanned, scanned.links),
    }
    found = {name: pa.table(columns) for name, columns in tables.items()}
    for name in ("inline", "inodes", "links"):
        # Leaves that were read before a newer commit, and are not in use any more.
        found[name] = found[name].filter(pyarrow.compute.field("set_id") != EMPTY)
    return found


def _by_set(scanned: Scan, columns: dict[str, Any]) -> dict[str, Any]:
    """Return columns with the set of roots of each row instead of its leaf."""
    leaf: NDArray[np.uint32] = columns.pop("leaf")
    return {**columns, "set_id": scanned.leaf_sets[leaf]}


def _sets(scanned: Scan) -> dict[str, Any]:
    import pyarrow as pa

    trees = [owner.tree for owner in scanned.owners]
    return {
        "set_id": np.arange(len(scanned.sets), dtype=np.uint32),
        "trees": pa.array(
            [
                [tree for bit, tree in enumerate(trees) if mask >> bit & 1]
                for mask in scanned.sets.masks
            ],
            pa.list_(pa.uint64()),
        ),
        "data": scanned.sizes.data.sum(axis=1),
        "metadata": scanned.sizes.metadata.sum(axis=1),
    }


def _links(scanned: Scan, links: LinkRows) -> dict[str, Any]:
    import pyarrow as pa

    # Names lie one after another, as Arrow has them.
    offsets = np.append(links.name_at, len(scanned.names)).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(scanned.names)]
    names = pa.Array.from_buffers(pa.large_binary(), len(links.inum), buffers)
    columns = {"inum": links.inum, "parent": links.parent, "name": names, "leaf": links.leaf}
    return _by_set(scanned, columns)
