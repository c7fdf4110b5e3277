"""Sample rasters as Dagster metadata: a thumbnail shown in place, and the full picture behind a click.

Drawing belongs in `plots`, choosing rows in `publish.samples`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from neuralpile_dagster.ledger.samples import session_sample
from neuralpile_dagster.publish.samples import CARD_SAMPLES, CARD_SEED, folder_samples
from neuralpile_dagster.records import CountsRecord
from neuralpile_dagster.store import Store

if TYPE_CHECKING:
    from neuralpile_dagster.plots.window import RasterSample

Pictures = dict[str, dg.MarkdownMetadataValue]
SESSION_CHARACTERS, COMPONENT_CHARACTERS = 30_000, 150_000
"""Most characters of Markdown for a partition's pictures, and for an asset without partitions, glance included: a page
of events has a hundred of them."""


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
    from neuralpile_dagster.plots.glance import INLINE_CHARACTERS, glance_markdown
    from neuralpile_dagster.plots.raster import raster_markdown

    if not samples:
        return {}
    large = raster_markdown(samples, alt, most_characters - INLINE_CHARACTERS)
    return {"glance": dg.MetadataValue.md(glance_markdown(samples[glance])), name: dg.MetadataValue.md(large)}
