"""Filesystems that many tests look at; each is built once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import support


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
