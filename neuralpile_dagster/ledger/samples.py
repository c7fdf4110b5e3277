"""Random rows for pictures, read from a Parquet file, the store or a hub; drawing belongs in `plots`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from neuralpile_dagster.catalog.load import load_catalog
from neuralpile_dagster.errors import ConfigurationError, TableError
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.records import CountsRecord
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, open_store
from neuralpile_dagster.tables.rows import RowReader

if TYPE_CHECKING:
    from neuralpile_dagster.plots.raster import RasterSample

UI_SAMPLES = 4
SYNTHETIC_PREFIX = "sample-"
"""Prefix of synthetic datasets' names, reserved for them by `catalog.model.Dataset`."""


_BUILD = "build or publish it first, e.g. neuralpile build steinmetz"


def rows_of_files(
    names: Sequence[str], open_file: Callable[[str], pa.NativeFile], count: int, seed: int, synthetic: bool = False
) -> list[RasterSample]:
    """Windows of randomly chosen rows of randomly chosen files; same seed, same windows."""
    from neuralpile_dagster.plots.raster import sample_window

    rng = np.random.default_rng(seed)
    chosen = sorted(rng.choice(len(names), size=min(count, len(names)), replace=False)) if len(names) else []
    samples: list[RasterSample] = []
    with ExitStack() as stack:
        readers = [stack.enter_context(RowReader(open_file(names[i]), names[i])) for i in chosen]
        for reader, wanted in zip(readers, _shares([reader.n_rows for reader in readers], count), strict=True):
            for number in sorted(rng.choice(reader.n_rows, size=wanted, replace=False)):
                row = reader.row(int(number))
                label = f"{row.source_dataset} · " if row.source_dataset else ""
                made_up = synthetic or (row.source_dataset or "").startswith(SYNTHETIC_PREFIX)
                samples.append(sample_window(row.counts, f"{label}{row.session_id} · {row.segment_id}", rng, made_up))
    return samples


def _shares(available: Sequence[int], count: int) -> list[int]:
    """Number of rows to take from each file, ``count`` in all: equal shares, limited by the rows available."""
    shares = [0] * len(available)
    while sum(shares) < min(count, sum(available)):
        for position, rows in enumerate(available):
            if shares[position] < rows and sum(shares) < count:
                shares[position] += 1
    return shares


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
        return _rows_of_file(path, count, seed)
    if path.is_dir():
        files = [str(file) for file in sorted(path.glob("**/data/*.parquet"))]
        made_up = path.absolute().name.startswith(SYNTHETIC_PREFIX)
        return _some(source, rows_of_files(files, lambda name: pa.OSFile(name, "rb"), count, seed, made_up))
    catalog = load_catalog(settings)
    if source in catalog:
        dataset, store = catalog[source], open_store(settings.store)
        manifest = documents.read_manifest(store, dataset)
        keys = [f"{documents.counts_folder(dataset, settings)}/{session.key}.parquet" for session in manifest.sessions]
        made = set(store.keys(documents.counts_folder(dataset, settings)))
        names = [key for key in keys if key in made]
        return _some(source, rows_of_files(names, store.open, count, seed, manifest.synthetic))
    if source.count("/") == 1 or source == documents.repository_name(None, settings):
        return _rows_of_repository(settings, source, count, seed)
    raise ConfigurationError(
        f"nothing to draw is named {source!r}",
        expected="a Parquet file, the name of a dataset, a folder of a local hub, or a repository owner/name",
        remedy="see: neuralpile catalog",
    )


def _rows_of_file(path: Path, count: int, seed: int) -> list[RasterSample]:
    try:
        return rows_of_files([str(path)], lambda name: pa.OSFile(name, "rb"), count, seed)
    except TableError as error:  # its remedy is for files of the store; this may be a recording
        raise ConfigurationError(
            f"{path} cannot be drawn",
            found=error.found or error.what,
            expected="a Parquet file of rows",
            remedy=f"of a recording, make one with: neuralpile bin {path} -o OUT.parquet",
        ) from error


def _rows_of_repository(settings: Settings, source: str, count: int, seed: int) -> list[RasterSample]:
    from neuralpile_dagster.hub import open_hub
    from neuralpile_dagster.publish.configs import open_published

    hub = open_hub(settings)
    names = [f.path for f in hub.files(source) if f.path.startswith("data/") and f.path.endswith(".parquet")]
    made_up = source.split("/")[-1].startswith(SYNTHETIC_PREFIX)
    samples = rows_of_files(names, lambda path: open_published(hub, source, path), count, seed, made_up)
    if settings.hub == "hf":
        return _some(source, samples, " on the Hugging Face Hub", "publish it first, or correct the name")
    remedy = f"{_BUILD}, or set NEURALPILE_HUB=hf (and NEURALPILE_NAMESPACE) to read from the Hugging Face Hub"
    return _some(source, samples, f" on the local hub {settings.home / 'hub'}", remedy)


def _some(source: str, samples: list[RasterSample], where: str = "", remedy: str = _BUILD) -> list[RasterSample]:
    if not samples:
        raise ConfigurationError(
            f"{source} has no rows to draw yet{where}", found="no Parquet files of rows", remedy=remedy
        )
    return samples
