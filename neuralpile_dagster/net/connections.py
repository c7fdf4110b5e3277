"""Connection pools, shared by all files that one archive object opens.

Here belong the limit of concurrent requests and the life of pools. What is requested, and retries, belong elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

import urllib3

from neuralpile_dagster.net.http import open_pool, proxy_for
from neuralpile_dagster.net.retry import RetryPolicy


class Connections:
    """A shared connection pool limited to ``count`` concurrent requests; closed when its last user leaves.

    Parameters
    ----------
    count : int
    limits : RetryPolicy
    """

    def __init__(self, count: int, limits: RetryPolicy) -> None:
        self.count = count
        self.limits = limits
        self._slots = threading.BoundedSemaphore(count)
        self._lock = threading.Lock()
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self._users: WeakSet[object] = WeakSet()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for a slot. Its holder may wait for the server only: other requests wait for the slot."""
        with self._slots:
            yield

    def pool(self, url: str) -> urllib3.PoolManager:
        """Connections to ``url``'s host and others behind the same proxy; use them within a `slot`."""
        proxy = proxy_for(url)
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = open_pool(url, self.limits, self.count)
            return self._pools[proxy]

    def join(self, user: object) -> None:
        """Keep connections open until this user leaves."""
        with self._lock:
            self._users.add(user)

    def leave(self, user: object) -> None:
        """Close all connections when no user is left; leaving twice is harmless."""
        with self._lock:
            self._users.discard(user)
            pools = [] if self._users else list(self._pools.values())
            if pools:
                self._pools.clear()
        for pool in pools:
            pool.clear()
