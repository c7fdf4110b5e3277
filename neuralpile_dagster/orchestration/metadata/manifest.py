"""Dagster metadata of a manifest: the sessions of a dataset and their states. Formats only, computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from neuralpile_dagster.catalog.describe import rule_in_words
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.readers import get_reader
from neuralpile_dagster.orchestration.metadata import summaries
from neuralpile_dagster.orchestration.metadata.sessions import few_plots, place, table
from neuralpile_dagster.recordings.manifest import Manifest


def manifest_metadata(
    dataset: Dataset, manifest: Manifest, new_keys: int, uri: str, seconds: float, states: Mapping[str, str]
) -> dict[str, Any]:
    """Metadata of a manifest; ``states`` are its sessions' states by key. Vanished sessions come first in its table.

    "session_rule" and "reader" hold for all sessions and are shown once.
    """
    present = [session for session in manifest.sessions if not session.vanished]
    metadata: dict[str, Any] = {
        "summary": summaries.manifest_summary(manifest, new_keys),
        "sessions": len(present),
        "sessions_new": new_keys,
        "sessions_vanished": len(manifest.vanished),
        "subjects": len({session.subject_id for session in present}),
        "files_considered": manifest.considered,
        "files_dropped": dict(sorted(manifest.dropped.items())),
        "session_rule": dg.MetadataValue.md("\n".join(f"- {line}" for line in rule_in_words(dataset.sessions))),
        "reader": dg.MetadataValue.md(get_reader(dataset.reader).markdown),
        "bytes": sum(session.size for session in present),
        "gigabytes": round(sum(session.size for session in present) / 1e9, 3),
        "seconds": round(seconds, 3),
        "source": place(dataset.source.url) if dataset.source.url else dataset.source.label,
        "source_version": manifest.version,
        "source_is_frozen": manifest.frozen,
        "license": manifest.citation.license or "not stated by the source",
        "dagster/uri": uri,
        "sessions_table": table(
            [
                {
                    "session": session.session_id,
                    "status": states[session.key],
                    "MB": f"{session.size / 1e6:,.1f}",
                }
                for session in [*manifest.vanished, *present]
            ]
        ),
    }
    if manifest.citation.citation:
        metadata["citation"] = manifest.citation.citation
    if manifest.version_note:
        metadata["version_note"] = manifest.version_note
    if manifest.newer_version:
        metadata["newer_version"] = manifest.newer_version
    if manifest.notes:
        metadata["archive_notes"] = "\n".join(manifest.notes)
    if manifest.replaced:
        metadata["sessions_replaced"] = ", ".join(session.files[0].path for session in manifest.replaced)
    return few_plots(metadata)
