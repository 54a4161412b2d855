"""Where the programs begin: with next to no import, so that an early Ctrl-C is quiet too."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> int:
    """Run btrfs-atlas; return its exit code."""
    return _started("main")


def heatmap() -> int:
    """Run btrfs-heatmap; return its exit code."""
    return _started("heatmap")


def balance() -> int:
    """Run btrfs-balance-least-used; return its exit code."""
    return _started("balance")


def search() -> int:
    """Run btrfs-search-metadata; return its exit code."""
    return _started("search")


def _started(name: str) -> int:
    try:
        from btrfs_atlas import cli

        program: Callable[[], int] = getattr(cli, name)
        return program()
    except KeyboardInterrupt:
        return 130
