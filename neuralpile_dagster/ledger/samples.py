"""Rows to draw, from whatever a person names: a Parquet file, a dataset, a folder or repository of a hub.

Choosing rows of files belongs in `publish.samples`, drawing in `plots`.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from neuralpile_dagster.catalog.load import load_catalog
from neuralpile_dagster.errors import ConfigurationError, TableError
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.plots.window import RasterSample
from neuralpile_dagster.publish.samples import (
    SYNTHETIC_PREFIX,
    folder_samples,
    published_facts,
    recorded_facts,
    rows_of_files,
)
from neuralpile_dagster.records import CountsRecord
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, open_store

_BUILD = "build or publish it first, e.g. neuralpile build steinmetz"


def session_sample(store: Store, record: CountsRecord, synthetic: bool) -> list[RasterSample]:
    """A window of one random segment of a session."""
    seed = int(record.file.sha256[:8], 16)
    return rows_of_files([record.file.key], store.open, 1, seed, synthetic, recorded_facts(store, [record]))


def random_rows(settings: Settings, source: str, count: int, seed: int) -> list[RasterSample]:
    """Rows of ``source``: a Parquet file, a dataset's name, a folder of a local hub, or ``owner/name`` on the hub.

    Raises `ConfigurationError` when it is none of these, or has no rows yet.
    """
    path = Path(source)
    if path.is_file():
        return _rows_of_file(path, count, seed)
    if path.is_dir():
        if (path / "data").is_dir():
            return _some(source, folder_samples(path, count, seed))
        files = [str(file) for file in sorted(path.glob("**/data/*.parquet"))]
        made_up = path.absolute().name.startswith(SYNTHETIC_PREFIX)
        return _some(source, rows_of_files(files, lambda name: pa.OSFile(name, "rb"), count, seed, made_up))
    catalog = load_catalog(settings)
    if source in catalog:
        dataset, store = catalog[source], open_store(settings.store)
        manifest = documents.read_manifest(store, dataset)
        records = documents.done_records(store, dataset, settings, manifest).values()
        names, facts = [record.file.key for record in records], recorded_facts(store, records)
        return _some(source, rows_of_files(names, store.open, count, seed, manifest.synthetic, facts))
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
    paths = [file.path for file in hub.files(source)]
    names = [path for path in paths if path.startswith("data/") and path.endswith(".parquet")]
    made_up = source.split("/")[-1].startswith(SYNTHETIC_PREFIX)

    def open_file(path: str) -> pa.NativeFile:
        return open_published(hub, source, path)

    samples = rows_of_files(names, open_file, count, seed, made_up, published_facts(open_file, paths))
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
