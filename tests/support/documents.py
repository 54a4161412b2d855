"""The documents of the repository: blocks of code, links, headings, and names of modules."""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

NOT_IN_A_CLONE = (
    *(".git", ".venv", "build", "demo", "node_modules", "__pycache__"),
    *(".*_cache", ".coverage*", ".hypothesis"),
)


def blocks(document: Path, language: str) -> list[tuple[str, str]]:
    """Return the blocks of a language, each with the block without a language that follows it."""
    return re.findall(
        rf"^```{language}\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?",
        document.read_text(),
        re.MULTILINE | re.DOTALL,
    )


def prose(document: Path) -> str:
    """Return the text of a document without its blocks of code."""
    return re.sub(r"^```.*?^```\n", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def links(document: Path) -> list[str]:
    """Return the targets of all links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(document))


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings, as the sites that render Markdown make them."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dotted_names(document: Path) -> Iterator[str]:
    """Yield the names in backticks that begin with one of our packages: `btrfs.utils.parse`."""
    for quoted in re.findall(r"`([^`\n]+)`", prose(document)):
        found = re.match(r"(?:btrfs|heatmap|btrfs_atlas)(?:\.[A-Za-z_]\w*)+", quoted)
        if found:
            yield found[0]


def resolves(name: str) -> bool:
    """Tell whether a dotted name is a module, or is found in one."""
    package, *attributes = name.split(".")
    found: object = importlib.import_module(package)
    path = package
    for attribute in attributes:
        path = f"{path}.{attribute}"
        if not hasattr(found, attribute):
            try:
                importlib.import_module(path)
            except ImportError:
                return False
        found = getattr(found, attribute)
    return True


def copy_repository(folder: Path) -> Path:
    """Copy the repository as a new user has it."""
    return Path(shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_IN_A_CLONE)))
