"""The first things that the UI shows of a materialization: a summary in one sentence, and sample rasters.

A summary's numbers are readable; they stand below it again as metadata of their own, which Dagster plots over time but
shows without separators. Of rasters a thumbnail is shown in place, and the full picture behind a click. Drawing belongs
in `plots`, choosing rows in `publish.samples`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from neuralpile_dagster.files import ReadCost
from neuralpile_dagster.hub import Publication
from neuralpile_dagster.ledger.samples import session_sample
from neuralpile_dagster.markdown import link, text
from neuralpile_dagster.merge.model import PlanRecord
from neuralpile_dagster.publish.samples import CARD_SAMPLES, CARD_SEED, folder_samples
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.records import ComponentRecord, CountsRecord, TrainsRecord
from neuralpile_dagster.store import Store

if TYPE_CHECKING:
    from neuralpile_dagster.plots.window import RasterSample

Pictures = dict[str, dg.MarkdownMetadataValue]
SESSION_CHARACTERS, COMPONENT_CHARACTERS = 30_000, 150_000
"""Most characters of Markdown for a partition's pictures, and for an asset without partitions, glance included: a page
of events has a hundred of them."""
_SYNTHETIC = "SYNTHETIC: made by a generator, not recorded from an animal. "


def plural(number: int, one: str) -> str:
    """Number with its noun, e.g. ``1 session``, ``1,200 sessions``."""
    return f"{number:,} {one if number == 1 else one + 's'}"


def _size(number: int) -> str:
    """Bytes in MB or GB."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def _summary_value(words: str, synthetic: bool) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md((_SYNTHETIC if synthetic else "") + words)


def manifest_summary(manifest: Manifest, new_keys: int) -> dg.MarkdownMetadataValue:
    """Summary of a manifest: sessions, subjects, files and bytes; new and vanished sessions."""
    present = [session for session in manifest.sessions if not session.vanished]
    files = sum(len(session.files) for session in present)
    subjects = plural(len({session.subject_id for session in present}), "subject")
    size = _size(sum(session.size for session in present))
    words = f"**{plural(len(present), 'session')}** of {subjects} in {plural(files, 'file')}, {size}"
    words += f"; {new_keys:,} new" if new_keys else ""
    words += f"; {len(manifest.vanished):,} no longer in the archive" if manifest.vanished else ""
    return _summary_value(f"{words}. Version {text(manifest.version)}.", manifest.synthetic)


def trains_summary(record: TrainsRecord, cost: ReadCost | None, synthetic: bool) -> dg.MarkdownMetadataValue:
    """Summary of spike trains: units, spikes, and the cost of reading them."""
    spikes = "" if record.n_spikes is None else f", {plural(record.n_spikes, 'spike')}"
    how = "up to date in the store; nothing was read"
    if cost is not None:
        how = f"{_size(cost.bytes_read)} read in {plural(cost.requests, 'request')}"
    return _summary_value(f"**{plural(record.n_units, 'unit')}**{spikes}; {how}.", synthetic)


def counts_summary(record: CountsRecord, synthetic: bool) -> dg.MarkdownMetadataValue:
    """Summary of spike counts: tokens, units, bins, spikes and rate, and what was dropped or not observed."""
    stats = record.stats
    minutes, observed = (f"{seconds / 60:,.1f} min" for seconds in (stats.duration_s, stats.observed_s))
    minutes += f", {observed} of them observed" if observed != minutes else ""
    dropped = f", {stats.dropped:,} dropped" if stats.dropped else ""
    return _summary_value(
        f"**{plural(stats.tokens, 'token')}** = {plural(stats.n_units, 'unit')} x {plural(stats.n_bins, 'bin')} of "
        f"{stats.bin_width_s * 1000:g} ms ({minutes}) in {plural(len(record.rows), 'segment')}; "
        f"{plural(stats.spikes_kept, 'spike')}{dropped}, {stats.mean_rate_hz:.2f} per unit and second.",
        synthetic,
    )


def component_summary(component: ComponentRecord, publication: Publication) -> dg.MarkdownMetadataValue:
    """Summary of a publication: tokens, place, and number of missing sessions."""
    totals, missing = component.totals, len(component.missing)
    words = (
        f"**{plural(totals.tokens, 'token')}** in {plural(totals.sessions, 'session')} of "
        f"{plural(totals.subjects, 'subject')}: {plural(totals.units, 'unit')}, {plural(totals.spikes, 'spike')}, "
        f"{totals.minutes:,.1f} min. Published as {link(publication.repository, publication.url)}"
    )
    words += f" **without {plural(missing, 'session')}** that failed or were left out." if missing else "."
    return _summary_value(words, component.synthetic)


def made_summary(numbers: Mapping[str, int | float | str], synthetic: bool) -> dg.MarkdownMetadataValue:
    """Summary of something made of a pile: its first numbers."""
    first = [
        f"{value:,} {name.replace('_', ' ')}" if isinstance(value, int | float) else text(value)
        for name, value in numbers.items()
    ][:3]
    return _summary_value(f"**{first[0]}**" + "".join(f", {words}" for words in first[1:]) + ".", synthetic)


def plan_summary(plan: PlanRecord, synthetic: bool) -> dg.MarkdownMetadataValue:
    """Summary of a plan: tokens, components and splits of the pile."""
    sizes = (
        f"{split}: {plural(part.rows, 'row')}, {plural(part.tokens, 'token')}" for split, part in plan.splits.items()
    )
    by_hash = " (hash of each)" if plan.rules.split_rule == "hash" else ""
    return _summary_value(
        f"**{plural(plan.totals.tokens, 'token')}** in {plural(plan.totals.rows, 'row')} of "
        f"{plural(plan.totals.sessions, 'session')} from {plural(len(plan.sources), 'component')}. "
        f"{'; '.join(sizes)}. Split by {plan.split_by}{by_hash}, seed {plan.seed}.",
        synthetic,
    )


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
