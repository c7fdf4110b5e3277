"""The forms that all Dagster metadata share: tables, places, what is plotted, summaries, and sample rasters.

Metadata of a dataset's records are in `dataset`, of a pile's in `pile`; they format and compute nothing. A summary is
one sentence, the first thing that the UI shows of a materialization: its numbers are readable, and stand below it again
as metadata of their own, which Dagster plots over time but shows without separators. Of rasters a thumbnail is shown in
place, and the full picture behind a click. Drawing belongs in `plots`, choosing rows in `publish.samples`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from neuralpile_dagster.hub import Publication
from neuralpile_dagster.ledger.samples import session_sample
from neuralpile_dagster.markdown import url
from neuralpile_dagster.publish.configs import config_path
from neuralpile_dagster.publish.samples import CARD_SAMPLES, CARD_SEED, folder_samples
from neuralpile_dagster.publish.token_counts import VALUES, TokenStatistics, counts_by_split, statistics_rows
from neuralpile_dagster.records import ComponentRecord, CountsRecord, TokenCounts
from neuralpile_dagster.store import Store
from neuralpile_dagster.tables.schemas import ROW_SCHEMA

if TYPE_CHECKING:
    from neuralpile_dagster.plots.window import RasterSample

Pictures = dict[str, dg.MarkdownMetadataValue]
SESSION_CHARACTERS, COMPONENT_CHARACTERS = 30_000, 150_000
"""Most characters of Markdown for a partition's pictures, and for an asset without partitions, glance included: a page
of events has a hundred of them."""
TABLE_ROWS = 400
"""Maximum rows shown in a table; the largest dataset has 349 sessions."""
PLOTTED = frozenset(
    {"tokens", "sessions", "units", "spikes", "mean_rate_hz", "bytes", "seconds", "sessions_done", "sessions_failed"}
)
"""Numbers that the UI plots over time: it plots every number, and twenty plots bury those that matter."""
VALUES_SHOWN = 10
"""Smallest values of tokens that have a row of their own in the table of a page; larger ones are added up."""
_REASONS_SHOWN = 10


def few_plots(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata in which all numbers but those `PLOTTED` are texts, which Dagster shows and does not plot."""
    return {
        name: f"{value:,}" if type(value) in (int, float) and name not in PLOTTED and "/" not in name else value
        for name, value in metadata.items()
    }


def table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Table for the UI; all rows need the same columns. A longer table ends with the number of rows left out.

    At 1,400 pixels the UI has 430 for it, which hold four or five short columns; the rest would be cut off.
    """
    shown = [dg.TableRecord(dict(row)) for row in rows[:TABLE_ROWS]]
    if len(rows) > TABLE_ROWS:
        first = next(iter(rows[0]))
        note = {name: ("" if isinstance(value, str) else 0) for name, value in rows[0].items()}
        shown.append(dg.TableRecord({**note, first: f"(and {len(rows) - TABLE_ROWS} more)"}))
    columns = []
    for name, value in (rows[0] if rows else {"empty": ""}).items():
        kind = "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "string"
        columns.append(dg.TableColumn(name, "float" if isinstance(value, float) else kind))
    return dg.MetadataValue.table(shown, schema=dg.TableSchema(columns))


def column_schema(schema: pa.Schema = ROW_SCHEMA) -> dg.TableSchema:
    """Arrow schema for the UI's column view."""
    descriptions = {
        "spike_counts": "units x bins, spikes per bin (saturating at 255)",
        "subject_id": "nearest `sub-*` folder of the archive file, else its parent folder",
        "session_id": "name of the archive file without extension (or of the group of files)",
        "segment_id": "consecutive bins of the session, numbered from 0",
        "source_dataset": "repository that the row comes from",
        "ticks": "spike times: ticks / ticks_per_s are seconds; without ticks_per_s, bit patterns of float64 seconds",
        "counts": "spikes per bin, as the file has them",
    }
    columns = [dg.TableColumn(f.name, _plain(f.type), description=descriptions.get(f.name)) for f in schema]
    return dg.TableSchema(columns)


def _plain(kind: pa.DataType) -> str:
    return f"list<{_plain(kind.value_type)}>" if pa.types.is_list(kind) else str(kind)


def place(address: str) -> dg.MetadataValue:
    """Metadata value of an address: a link for a URL, else a path or store address to copy."""
    return dg.MetadataValue.url(address) if url(address) else dg.MetadataValue.path(address)


def counted(reasons: Mapping[str, str]) -> str:
    """Capped Markdown list of items and their reasons, with the total."""
    if not reasons:
        return "none"
    kinds = Counter(reasons.values())
    lines = [f"- `{key}`: {reason}" for key, reason in list(reasons.items())[:_REASONS_SHOWN]]
    if len(reasons) > _REASONS_SHOWN:
        lines.append(f"- and {len(reasons) - _REASONS_SHOWN} more, of {len(kinds)} kinds")
    return "\n".join(lines)


def summary(words: str, synthetic: bool) -> dg.MarkdownMetadataValue:
    """Metadata value of a summary, which says first where data are not recordings."""
    made = "SYNTHETIC: made by a generator, not recorded from an animal. " if synthetic else ""
    return dg.MetadataValue.md(made + words)


def publication_metadata(publication: Publication, seconds: float) -> dict[str, Any]:
    """Metadata of a publication."""
    return {
        "repository": publication.repository,
        "published_at": place(publication.url),
        "version": publication.version,
        "changed": publication.changed,
        "files": len(publication.files),
        "bytes": sum(file.size for file in publication.files),
        "bytes_sent": publication.bytes_sent,
        "seconds": round(seconds, 3),
        "dagster/uri": publication.url,
    }


def token_metadata(parts: Sequence[TokenCounts], publication: Publication) -> dict[str, Any]:
    """Metadata on the values of tokens; nothing where they were not counted.

    "token_counts" adds larger values up; the publication's table, "token_counts_table", has a row for each of them.
    """
    if not parts:
        return {}
    overall, by_split = TokenStatistics.of(parts), counts_by_split(parts)
    ranges = {f"{value}": slice(value, value + 1) for value in range(VALUES_SHOWN)}
    ranges[f"{VALUES_SHOWN} to {VALUES - 1}"] = slice(VALUES_SHOWN, VALUES)
    rows = [
        {"tokens of value": name, **{split: f"{int(counts[values].sum()):,}" for split, counts in by_split.items()}}
        for name, values in ranges.items()
    ]
    folder = f"{publication.url}/blob/main" if url(publication.url) else publication.url
    return {
        "token_statistics": table(statistics_rows(parts)),
        "token_counts": table(rows),
        "token_counts_table": place(f"{folder}/{config_path('token_counts')}"),
        "share_of_zeros": round(overall.bands["0"], 6),
        "spikes_per_token": round(overall.mean, 6),
        "bits_per_token": round(overall.entropy, 6),
        **({} if overall.tokens_per_hour is None else {"tokens_per_hour": round(overall.tokens_per_hour)}),
    }


def annotation_metadata(components: Sequence[ComponentRecord]) -> dict[str, Any]:
    """Metadata on how much of some components is annotated, and ordered."""
    sessions = sum(component.totals.sessions for component in components)
    found = [component.annotations for component in components if component.annotations]
    ordered = sum(component.unit_order.sessions for component in components if component.unit_order)
    rows: Counter[str] = Counter()
    for one in found:
        rows.update(one.tables)
    return {
        "annotated_sessions": f"{sum(one.sessions for one in found):,} of {sessions:,}",
        "intervals": ", ".join(f"{name} ({number:,})" for name, number in sorted(rows.items())) or "none",
        "unit_metrics": ", ".join(sorted({name for one in found for name in one.metrics})) or "none",
        **({"sessions_with_unit_order": f"{ordered:,} of {sessions:,}"} if ordered else {}),
    }


def session_raster(store: Store, record: CountsRecord, synthetic: bool) -> Pictures:
    """Picture of one window of a session."""
    return _pictures(
        session_sample(store, record, synthetic), "raster", f"raster of {record.session_id}", SESSION_CHARACTERS
    )


def folder_rasters(folder: Path, synthetic: bool, what: str) -> Pictures:
    """Pictures of random rows of a published folder: those on its card."""
    samples = folder_samples(folder, CARD_SAMPLES, CARD_SEED, synthetic)
    return _pictures(samples, "rasters", f"rasters of {what}", COMPONENT_CHARACTERS)


def analysis_rasters(samples: Sequence[RasterSample], what: str) -> Pictures:
    """Pictures of what an analysis gives to draw of a session; the last sample is what it made."""
    return _pictures(samples, "rasters", f"rasters of {what}", len(samples) * SESSION_CHARACTERS, glance=-1)


def _pictures(samples: Sequence[RasterSample], name: str, alt: str, most_characters: int, glance: int = 0) -> Pictures:
    from neuralpile_dagster.plots.raster import INLINE_CHARACTERS, glance_markdown, raster_markdown

    if not samples:
        return {}
    large = raster_markdown(samples, alt, most_characters - INLINE_CHARACTERS)
    return {"glance": dg.MetadataValue.md(glance_markdown(samples[glance])), name: dg.MetadataValue.md(large)}
