"""Environment variables of the archives on the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from neuralpile_dagster.archives.cache import DEFAULT_CACHE_BYTES, DownloadCache
from neuralpile_dagster.errors import ConfigurationError

DEFAULT_CONNECTIONS = 8
MAX_CONNECTIONS = 64


def connections_from(environment: Mapping[str, str]) -> int:
    """NEURALPILE_CONNECTIONS: parallel requests of one step."""
    return _whole_number(environment, "NEURALPILE_CONNECTIONS", DEFAULT_CONNECTIONS, 1, MAX_CONNECTIONS)


def download_cache_from(environment: Mapping[str, str], home: Path) -> DownloadCache:
    """The cache of whole files under ``<home>/cache``, of at most NEURALPILE_CACHE_BYTES."""
    most = _whole_number(environment, "NEURALPILE_CACHE_BYTES", DEFAULT_CACHE_BYTES, 0, 1 << 60)
    return DownloadCache(home / "cache", most)


def _whole_number(environment: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environment.get(name)
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise ConfigurationError(f"{name} is wrong", found=text, expected=f"a whole number from {low:,} to {high:,}")
    return int(text)
