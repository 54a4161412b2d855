"""Who uses what: all trees as one graph, subvolumes, paths, back references, duplicates.

:func:`scan` reads all trees once, and answers from that how much each subvolume, directory and file
uses, what it shares, and what deleting it frees: see :mod:`btrfs.ownership.engine`. For single
extents and paths there are :mod:`btrfs.ownership.backrefs` and :mod:`btrfs.ownership.paths`.
"""

from btrfs._lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from btrfs.ownership import (
        arrow as arrow,
        backref_walk as backref_walk,
        backrefs as backrefs,
        compression as compression,
        containment as containment,
        deletion_plan as deletion_plan,
        directories as directories,
        duplicate_files as duplicate_files,
        duplicates as duplicates,
        engine as engine,
        equal_runs as equal_runs,
        extent_refs as extent_refs,
        extents as extents,
        graph as graph,
        largest as largest,
        names as names,
        orphans as orphans,
        owners as owners,
        path_tree as path_tree,
        paths as paths,
        places as places,
        references as references,
        root_sets as root_sets,
        row_weights as row_weights,
        scanning as scanning,
        sizes as sizes,
        subvolume_files as subvolume_files,
        subvolume_space as subvolume_space,
        subvolumes as subvolumes,
        summary as summary,
        tables as tables,
    )
    from btrfs.ownership.engine import Ownership as Ownership, scan as scan
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        __path__,
        homes={"Ownership": "btrfs.ownership.engine", "scan": "btrfs.ownership.engine"},
    )
