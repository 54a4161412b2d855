"""The repository itself: targets of make, sizes of modules, files that editors and hooks read."""

from __future__ import annotations

import re

from tests.support.documents import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
LONGEST_MODULE = 500
SUFFIXES = {".py", ".js", ".css"}


def targets() -> set[str]:
    """Return the targets of the Makefile that are no files."""
    found = re.findall(r"^([a-z][a-z-]*):(?!=)", MAKEFILE, re.MULTILINE)
    assert found
    return set(found)


def test_every_target_is_phony() -> None:
    (phony,) = re.findall(r"^\.PHONY:((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony.replace("\\", "").split()) == targets()


def test_every_target_is_described() -> None:
    described = re.findall(r"^# make ([a-z-]+)  ", MAKEFILE, re.MULTILINE)
    assert sorted(described) == sorted(targets())


def test_no_module_is_too_long() -> None:
    """No module of ours; those of others, in vendor, are as they are."""
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in (ROOT / "src").rglob("*")
        if path.suffix in SUFFIXES and "vendor" not in path.parts
    }
    assert len(lines) > 100
    assert not {name: count for name, count in lines.items() if count > LONGEST_MODULE}


def test_hooks_come_from_nowhere_else() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (\S+)", hooks) == ["local"]
    assert "://" not in hooks
