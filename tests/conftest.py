"""Filesystems that many tests look at; each is built once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import support

# They do their work when they are imported: test_scripting.py runs them.
collect_ignore = ["scripts"]

# How long an example takes says nothing on a machine with other work to do.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    """A filesystem with contents of all kinds and quotas, mounted; not to be changed."""
    folder = tmp_path_factory.mktemp("mounted")
    with support.filesystem(folder, size="2G", data="single", metadata="dup", label="atlas") as fs:
        support.populate(fs.mountpoint)
        support.send_and_receive(fs.mountpoint)
        support.enable_quota(fs.mountpoint)
        fs.sync()
        yield fs


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `image` is a copy of; not to be changed."""
    return support.stored_image("block-group-tree.img", tmp_path_factory.mktemp("original"))


@pytest.fixture
def image(original: Path, tmp_path: Path) -> Path:
    """A filesystem whose metadata is stored twice, and whose extent tree is more than one leaf."""
    support.run("cp", "--sparse=always", original, tmp_path / original.name)
    return tmp_path / original.name
