"""Random rows to look at, from wherever rows are: a Parquet file, the store, a hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from neuralpile_dagster.catalog.load import load_catalog
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.orchestration import locations
from neuralpile_dagster.records import CountsRecord
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, open_store
from neuralpile_dagster.tables.rows import RowReader

if TYPE_CHECKING:
    from neuralpile_dagster.plots.raster import RasterSample

UI_SAMPLES = 4


def rows_of_files(
    names: Sequence[str], open_file: Callable[[str], pa.NativeFile], count: int, seed: int, synthetic: bool = False
) -> list[RasterSample]:
    """Windows of randomly chosen rows of randomly chosen files; same seed, same windows."""
    from neuralpile_dagster.plots.raster import sample_window

    rng = np.random.default_rng(seed)
    chosen = sorted(rng.choice(len(names), size=min(count, len(names)), replace=False)) if len(names) else []
    per_file = -(-count // max(len(chosen), 1))
    samples: list[RasterSample] = []
    for position in chosen:
        with RowReader(open_file(names[position]), names[position]) as reader:
            wanted = min(per_file, count - len(samples), reader.n_rows)
            for number in sorted(rng.choice(reader.n_rows, size=wanted, replace=False)):
                row = reader.row(int(number))
                label = f"{row.source_dataset} · " if row.source_dataset else ""
                samples.append(sample_window(row.counts, f"{label}{row.session_id} · {row.segment_id}", rng, synthetic))
    return samples


def session_sample(store: Store, record: CountsRecord, synthetic: bool) -> list[RasterSample]:
    """A window of one random segment of a session."""
    seed = int(record.file.sha256[:8], 16)
    return rows_of_files([record.file.key], store.open, 1, seed, synthetic)


def random_rows(settings: Settings, source: str, count: int, seed: int) -> list[RasterSample]:
    """Rows of ``source``: a Parquet file, a dataset's name, a folder of a local hub, or ``owner/name`` on the hub.

    Raises `ConfigurationError` when it is none of these, or has no rows yet.
    """
    path = Path(source)
    if path.is_file():
        return rows_of_files([str(path)], lambda name: pa.OSFile(name, "rb"), count, seed)
    if path.is_dir():
        files = [str(file) for file in sorted(path.glob("**/data/*.parquet"))]
        return _some(source, rows_of_files(files, lambda name: pa.OSFile(name, "rb"), count, seed))
    catalog = load_catalog(settings)
    if source in catalog:
        dataset, store = catalog[source], open_store(settings.store)
        manifest = locations.read_manifest(store, dataset)
        keys = [f"{locations.counts_folder(dataset, settings)}/{session.key}.parquet" for session in manifest.sessions]
        made = set(store.keys(locations.counts_folder(dataset, settings)))
        names = [key for key in keys if key in made]
        return _some(source, rows_of_files(names, store.open, count, seed, manifest.synthetic))
    if source.count("/") == 1:
        return _some(source, _rows_of_repository(settings, source, count, seed))
    raise ConfigurationError(
        f"there is nothing called {source!r} to draw",
        expected="a Parquet file, the name of a dataset, a folder of a local hub, or a repository owner/name",
        remedy="see: neuralpile catalog",
    )


def _rows_of_repository(settings: Settings, source: str, count: int, seed: int) -> list[RasterSample]:
    from neuralpile_dagster.hub import open_hub
    from neuralpile_dagster.hub.reading import open_published

    hub = open_hub(settings)
    names = [f.path for f in hub.files(source) if f.path.startswith("data/") and f.path.endswith(".parquet")]
    return rows_of_files(names, lambda path: open_published(hub, source, path), count, seed)


def _some(source: str, samples: list[RasterSample]) -> list[RasterSample]:
    if not samples:
        raise ConfigurationError(
            f"{source} has no rows to draw yet",
            found="no Parquet files of rows",
            remedy="build it first: neuralpile build",
        )
    return samples
