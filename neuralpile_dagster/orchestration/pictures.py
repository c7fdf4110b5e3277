"""Sample rasters as Dagster metadata."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import dagster as dg
import pyarrow as pa

from neuralpile_dagster.orchestration.samples import UI_SAMPLES, rows_of_files, session_sample
from neuralpile_dagster.records import ComponentRecord, CountsRecord
from neuralpile_dagster.store import Store


def session_raster(store: Store, record: CountsRecord, synthetic: bool) -> dg.MarkdownMetadataValue:
    """One window of a session."""
    from neuralpile_dagster.plots.raster import as_markdown, raster_png

    png = raster_png(session_sample(store, record, synthetic))
    return dg.MetadataValue.md(as_markdown(png, f"raster of {record.session_id}"))


def component_raster(store: Store, component: ComponentRecord) -> dg.MarkdownMetadataValue:
    """Windows of a few sessions of a component."""
    files = [session.counts.key for session in component.sessions]
    return files_raster(files, store.open, int(component.inputs[:8], 16), component.synthetic, component.dataset)


def files_raster(
    names: Sequence[str], open_file: Callable[[str], pa.NativeFile], seed: int, synthetic: bool, what: str
) -> dg.MarkdownMetadataValue:
    """Windows of random rows of files."""
    from neuralpile_dagster.plots.raster import as_markdown, raster_png

    samples = rows_of_files(names, open_file, UI_SAMPLES, seed, synthetic)
    return dg.MetadataValue.md(as_markdown(raster_png(samples), f"rasters of {what}"))
