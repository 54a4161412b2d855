"""Where the programs begin: with next to no import, so that an early Ctrl-C is quiet too."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _program(name: str) -> "Callable[[], int]":
    """Return what runs a function of btrfs_atlas.cli, and returns its exit code."""

    def program() -> int:
        try:
            from btrfs_atlas import cli

            run: Callable[[], int] = getattr(cli, name)
            return run()
        except KeyboardInterrupt:
            return 130

    return program


main = _program("main")
balance = _program("balance")
calculate = _program("calculate")
heatmap = _program("heatmap")
orphans = _program("orphans")
search = _program("search")
usage = _program("usage")
