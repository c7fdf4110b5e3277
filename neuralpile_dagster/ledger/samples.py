"""Rows to draw, from whatever a person names: a Parquet file, a dataset, a folder or repository of a hub.

Choosing rows of files belongs in `publish.samples`, drawing in `plots`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from neuralpile_dagster.catalog.load import load_catalog, load_piles
from neuralpile_dagster.errors import ConfigurationError, TableError
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.plots.window import Ordering, RasterSample
from neuralpile_dagster.publish.samples import (
    SYNTHETIC_PREFIX,
    RowFiles,
    published_facts,
    recorded_facts,
)
from neuralpile_dagster.records import CountsRecord, UnitOrderRecord
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, open_store
from neuralpile_dagster.tables.units import read_order

_BUILD = "build or publish it first, e.g. neuralpile build steinmetz"


def session_sample(store: Store, record: CountsRecord, synthetic: bool) -> list[RasterSample]:
    """A window of one random segment of a session."""
    return _of_session(store, record, synthetic).random(1, _seed(record))


def order_samples(store: Store, record: CountsRecord, order: UnitOrderRecord, synthetic: bool) -> list[RasterSample]:
    """One window of a session twice: units in the order of its rows, and in their unit order."""
    with store.open(order.file.key) as file:
        places = read_order(file, order.file.key, order.n_units)
    orderings = [Ordering(np.arange(order.n_units), "as in rows"), Ordering(np.argsort(places), "in unit order")]
    return _of_session(store, record, synthetic).in_orders(orderings, _seed(record))


def _of_session(store: Store, record: CountsRecord, synthetic: bool) -> RowFiles:
    return RowFiles([record.file.key], store.open, synthetic, recorded_facts(store, [record]))


def _seed(record: CountsRecord) -> int:
    return int(record.file.sha256[:8], 16)


@dataclass(frozen=True)
class _Found(RowFiles):
    """Files of rows that a person named; ``where`` and ``remedy`` are for the error when they have no rows."""

    where: str = ""
    remedy: str = _BUILD


def random_rows(settings: Settings, source: str, count: int, seed: int) -> list[RasterSample]:
    """Rows of ``source``: a Parquet file, a dataset's name, a folder of a local hub, or ``owner/name`` on the hub.

    Raises `ConfigurationError` when it is none of these, or has no rows yet.
    """
    found = _find(settings, source)
    with _explained(source):
        samples = found.random(count, seed)
    if not samples:
        raise _nothing(source, found)
    return samples


def all_rows(settings: Settings, source: str, seed: int) -> Iterator[RasterSample]:
    """Every row of ``source`` in order, one in memory at a time; see `random_rows`."""
    found = _find(settings, source)
    drawn = False
    with _explained(source):
        for sample in found.every(seed):
            yield sample
            drawn = True
    if not drawn:
        raise _nothing(source, found)


def _find(settings: Settings, source: str) -> _Found:
    path = Path(source)
    if path.is_file():
        return _Found([source], _open_path)
    if path.is_dir():
        made_up = path.absolute().name.startswith(SYNTHETIC_PREFIX)
        if (path / "data").is_dir():
            files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*.parquet"))
            return _in_repository(files, lambda name: _open_path(str(path / name)), made_up)
        return _Found([str(file) for file in sorted(path.glob("**/data/*.parquet"))], _open_path, made_up)
    catalog = load_catalog(settings)
    if source in catalog:
        dataset, store = catalog[source], open_store(settings.store)
        manifest = documents.read_manifest(store, dataset)
        records = documents.done_records(store, dataset, settings, manifest).values()
        names = [record.file.key for record in records]
        return _Found(names, store.open, manifest.synthetic, recorded_facts(store, records))
    if source.count("/") == 1 or source in {
        documents.repository_name(pile, settings) for pile in load_piles(settings, catalog.values())
    }:
        return _find_on_hub(settings, source)
    raise ConfigurationError(
        f"nothing to draw is named {source!r}",
        expected="a Parquet file, the name of a dataset, a folder of a local hub, or a repository owner/name",
        remedy="see: neuralpile catalog",
    )


def _open_path(name: str) -> pa.NativeFile:
    return pa.OSFile(name, "rb")


def _in_repository(
    paths: Sequence[str],
    open_file: Callable[[str], pa.NativeFile],
    made_up: bool,
    where: str = "",
    remedy: str = _BUILD,
) -> _Found:
    names = [path for path in paths if path.startswith("data/") and path.endswith(".parquet")]
    return _Found(names, open_file, made_up, published_facts(open_file, paths), where, remedy)


def _find_on_hub(settings: Settings, source: str) -> _Found:
    from neuralpile_dagster.hub import open_hub
    from neuralpile_dagster.publish.configs import open_published

    hub = open_hub(settings)
    paths = [file.path for file in hub.files(source)]
    made_up = source.split("/")[-1].startswith(SYNTHETIC_PREFIX)
    where, remedy = " on the Hugging Face Hub", "publish it first, or correct the name"
    if settings.hub != "hf":
        where = f" on the local hub {settings.home / 'hub'}"
        remedy = f"{_BUILD}, or set NEURALPILE_HUB=hf (and NEURALPILE_NAMESPACE) to read from the Hugging Face Hub"
    return _in_repository(paths, lambda path: open_published(hub, source, path), made_up, where, remedy)


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Of a file that a person named the remedy is not that for files of the store: it may be a recording."""
    try:
        yield
    except TableError as error:
        if not Path(source).is_file():
            raise
        raise ConfigurationError(
            f"{source} cannot be drawn",
            found=error.found or error.what,
            expected="a Parquet file of rows",
            remedy=f"of a recording, make one with: neuralpile bin {source} -o OUT.parquet",
        ) from error


def _nothing(source: str, found: _Found) -> ConfigurationError:
    what = f"{source} has no rows to draw yet{found.where}"
    return ConfigurationError(what, found="no Parquet files of rows", remedy=found.remedy)
