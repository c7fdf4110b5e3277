"""Sample rasters as Dagster metadata: a thumbnail shown in place, and the full picture behind a click.

Drawing belongs in `plots`, choosing rows in `ledger.samples`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa

from neuralpile_dagster.ledger.samples import UI_SAMPLES, rows_of_files, session_sample
from neuralpile_dagster.records import ComponentRecord, CountsRecord
from neuralpile_dagster.store import Store

if TYPE_CHECKING:
    from neuralpile_dagster.plots.raster import RasterSample

Pictures = dict[str, dg.MarkdownMetadataValue]
SESSION_CHARACTERS, COMPONENT_CHARACTERS = 30_000, 150_000
"""Most characters of Markdown for a partition's pictures, and for an asset without partitions, glance included: a page
of events has a hundred of them."""


def session_raster(store: Store, record: CountsRecord, synthetic: bool) -> Pictures:
    """Picture of one window of a session."""
    return _pictures(
        session_sample(store, record, synthetic), "raster", f"raster of {record.session_id}", SESSION_CHARACTERS
    )


def component_rasters(store: Store, component: ComponentRecord) -> Pictures:
    """Pictures of windows of a few sessions of a component."""
    files = [session.counts.key for session in component.sessions]
    return files_rasters(files, store.open, int(component.inputs[:8], 16), component.synthetic, component.dataset)


def files_rasters(
    names: Sequence[str], open_file: Callable[[str], pa.NativeFile], seed: int, synthetic: bool, what: str
) -> Pictures:
    """Pictures of random rows of files."""
    samples = rows_of_files(names, open_file, UI_SAMPLES, seed, synthetic)
    return _pictures(samples, "rasters", f"rasters of {what}", COMPONENT_CHARACTERS)


def _pictures(samples: Sequence[RasterSample], name: str, alt: str, most_characters: int) -> Pictures:
    from neuralpile_dagster.plots.glance import INLINE_CHARACTERS, glance_markdown
    from neuralpile_dagster.plots.raster import raster_markdown

    if not samples:
        return {}
    large = raster_markdown(samples, alt, most_characters - INLINE_CHARACTERS)
    # the glance is of the first sample, which is also the first of the large picture
    return {"glance": dg.MetadataValue.md(glance_markdown(samples[0])), name: dg.MetadataValue.md(large)}
