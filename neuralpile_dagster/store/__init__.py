"""The store: where intermediate results live, addressed by ``/``-separated keys.

The one place that maps keys to bytes. A key appears complete or not at all;
keys that would leave the store are refused.
"""

from __future__ import annotations

import re
from pathlib import Path

from neuralpile_dagster.errors import StoreError
from neuralpile_dagster.store.local import LocalStore
from neuralpile_dagster.store.model import (
    Store,
    check_key,
    digest_of,
    is_intact,
    map_items,
    put_file,
    put_stream,
    read_record,
    write_record,
)

__all__ = [
    "LocalStore",
    "Store",
    "check_key",
    "digest_of",
    "is_intact",
    "map_items",
    "open_store",
    "put_file",
    "put_stream",
    "read_record",
    "write_record",
]


def open_store(location: str) -> Store:
    """The store at a folder or ``s3://bucket/prefix``; raises `StoreError` when it is neither."""
    if location.startswith("s3://"):
        from neuralpile_dagster.store.s3 import open_s3_store

        return open_s3_store(location)
    scheme = re.match(r"[A-Za-z][\w+.-]*:/+", location)  # the rest may hold a password
    if scheme:
        raise StoreError(
            "NEURALPILE_STORE is invalid",
            found=f"unknown kind of store {scheme[0]}",
            expected="a folder, or s3://bucket/prefix",
        )
    return LocalStore(Path(location).expanduser().absolute())
