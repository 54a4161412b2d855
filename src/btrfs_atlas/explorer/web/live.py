"""What pages are told without asking: that the filesystem has changed, that more of it was read.

Every page that is open holds a stream of server-sent events. While there is one, and the filesystem
is mounted, it is looked at once a second whether its generation has changed. What a slow listener
has not taken yet is put together: it holds each block group at most once.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from btrfs.errors import BtrfsError
from btrfs_atlas.explorer.web.worker_pool import BusyError, WorkerPool
from heatmap import HeatmapError

if TYPE_CHECKING:
    from btrfs_atlas.explorer.atlas import Atlas, Changes

MAX_LISTENERS = 16
"""So many pages can be open at once."""

_POLL_SECONDS = 1.0
_KEEP_ALIVE_SECONDS = 15.0
_GATHER_SECONDS = 0.2
"""Block groups are read one after another: pages are told about them no more often than this."""

_REMEMBERED = 32
"""So many of the last changes can be shown on the map."""

_logger = logging.getLogger(__name__)


class Live:
    """Tells all listeners about changes of a map.

    Args:
        atlas: The map.
    """

    def __init__(self, atlas: Atlas) -> None:
        self._atlas = atlas
        self._pool = WorkerPool(threads=1, limit=2)
        self._listeners: set[Listener] = set()
        self._changed: OrderedDict[int, list[int]] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poller: asyncio.Task[None] | None = None
        self._is_gathering = False
        self._failure: str | None = None
        atlas.on_loaded(self._on_loaded)

    @contextmanager
    def listener(self, since: int | None) -> Iterator[Listener]:
        """Have one more listener until the end of the block.

        Args:
            since: The generation that it shows, if it tells.

        Raises:
            BusyError: There are too many.
        """
        if len(self._listeners) >= MAX_LISTENERS:
            raise BusyError
        listener = Listener()
        if since is not None and since != self._atlas.generation:
            # It was not told of that generation: there was no listener, or not this one.
            listener.put_changed(self._atlas.generation, set())
        self._listeners.add(listener)
        self._loop = asyncio.get_running_loop()
        if self._poller is None and self._atlas.fs.mounted:
            self._poller = self._loop.create_task(self._poll())
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._poller is not None:
                self._poller.cancel()
                self._poller = None

    def changed_groups(self, since: int, generation: int) -> list[int]:
        """Return the virtual addresses of the block groups that changed from one to another.

        What was long ago is forgotten.

        Args:
            since: The generation that was shown before.
            generation: The one that is shown now.
        """
        chosen = (groups for at, groups in self._changed.items() if since < at <= generation)
        return sorted(set().union(*chosen))

    def _remember(self, changes: Changes) -> None:
        self._changed[changes.generation] = changes.groups
        if len(self._changed) > _REMEMBERED:
            self._changed.popitem(last=False)

    async def _poll(self) -> None:
        """Look for changes again and again; at once at first, as it may be the first time."""
        while True:
            changes = await self._refreshed()
            if changes is not None:
                self._remember(changes)
                for listener in self._listeners:
                    listener.put_changed(changes.generation, set(changes.groups))
            await asyncio.sleep(_POLL_SECONDS)

    async def _refreshed(self) -> Changes | None:
        try:
            changes = await self._pool.run(self._atlas.refresh)
        except BusyError:
            # It still looks for a listener that has left meanwhile.
            return None
        except (BtrfsError, HeatmapError, OSError) as error:
            # It may be better in a second; what is shown stays what it is.
            if str(error) != self._failure:
                _logger.warning("cannot look for changes: %s", error)
            self._failure = str(error)
            return None
        except Exception:
            _logger.exception("a fault while looking for changes")
            return None
        self._failure = None
        return changes

    def _on_loaded(self) -> None:
        """Take note that more was read; this is called by other threads."""
        loop = self._loop
        if loop is not None:
            # The loop may have ended.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._gather)

    def _gather(self) -> None:
        if self._listeners and not self._is_gathering:
            self._is_gathering = True
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._tell_loaded)

    def _tell_loaded(self) -> None:
        self._is_gathering = False
        for listener in self._listeners:
            listener.put_loaded()


class Listener:
    """One page, and what it is still to be told."""

    def __init__(self) -> None:
        self._generation: int | None = None
        self._groups: set[int] = set()
        self._loaded = False
        self._news = asyncio.Event()

    def put_changed(self, generation: int, groups: set[int]) -> None:
        """Tell that block groups changed, given by their virtual addresses."""
        self._generation = generation
        self._groups |= groups
        self._news.set()

    def put_loaded(self) -> None:
        """Tell that more was read."""
        self._loaded = True
        self._news.set()

    async def next(self) -> bytes:
        """Return the next events, or after a while without any a sign of life."""
        try:
            await asyncio.wait_for(self._news.wait(), _KEEP_ALIVE_SECONDS)
        except TimeoutError:
            return b": still here\n\n"
        self._news.clear()
        events = b""
        if self._generation is not None:
            groups = [str(group) for group in sorted(self._groups)]
            record = {"generation": str(self._generation), "groups": groups}
            events += _event("changed", record)
        if self._loaded:
            events += LOADED
        self._generation, self._groups, self._loaded = None, set(), False
        return events


def _event(name: str, record: dict[str, Any]) -> bytes:
    """Return an event as it is sent."""
    return f"event: {name}\ndata: {json.dumps(record)}\n\n".encode()


LOADED = _event("loaded", {})
"""Tells that more was read."""
