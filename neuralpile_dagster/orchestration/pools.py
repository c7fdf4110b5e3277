"""Dagster concurrency pools: what must not run too often at once. Limits are set in dagster.yaml or the UI."""

from __future__ import annotations

ARCHIVE_POOL = "neuralpile_archive"
"""Steps that talk to an archive; times the connections per step, this is what the archive sees."""
HUB_POOL = "neuralpile_hub"
"""Steps that publish."""
