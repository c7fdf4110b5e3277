"""Helpers for tests of stores."""

from __future__ import annotations

from neuralpile_dagster.store import Store


def put(store: Store, key: str, content: bytes) -> None:
    """Store a few bytes."""
    with store.writing(key) as path:
        path.write_bytes(content)
