"""Tables of published repositories, read back from a hub: what a pile takes over from its components."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import HubError
from neuralpile_dagster.hub.model import Hub
from neuralpile_dagster.publish.configs import EXTRA_SCHEMAS, config_path, open_published
from neuralpile_dagster.tables.footer import damaged, open_parquet

STREAMED = ("intervals", "unit_metrics")
"""Configs that are too large to be held, of all components at a time."""
SOURCE = pa.field("source_dataset", pa.string())
"""Last column of a pile's tables."""


def open_config(hub: Hub, repository: str, config: str) -> pq.ParquetFile | None:
    """Open the table of a published repository's extra config; None where it is missing. Raises `HubError`."""
    path = config_path(config)
    digests = {file.path: file.sha256 for file in hub.files(repository)}
    if path not in digests:
        return None
    with hub.open(repository, path) as file:
        content = file.read()  # some 200 bytes a unit
    if (found := hashlib.sha256(content).hexdigest()) != digests[path]:
        raise HubError(
            f"{path} of {repository} is damaged",
            found=f"sha256 {found}",
            expected=digests[path],
            remedy="materialize hub_dataset of that dataset again, then this",
        )
    return open_parquet(pa.BufferReader(content), f"{repository}/{path}")


def hub_tables(hub: Hub, repository: str) -> Callable[[str], Iterator[pa.Table]]:
    """Reader of a published repository's tables in `EXTRA_SCHEMAS`; yields nothing where one is missing.

    Those of a pile have a column ``source_dataset``. Tables in `STREAMED` are read one row group at a time; the others
    are small, and compared with their digest.
    """

    def tables(config: str) -> Iterator[pa.Table]:
        name = f"{repository}/{config_path(config)}"
        if config not in STREAMED:
            yield from _known_tables(open_config(hub, repository, config), config, name)
        elif config_path(config) in {file.path for file in hub.files(repository)}:
            with open_published(hub, repository, config_path(config)) as file:
                yield from _known_tables(open_parquet(file, name), config, name)

    return tables


def _known_tables(parquet: pq.ParquetFile | None, config: str, name: str) -> Iterator[pa.Table]:
    """Row groups of a table, if it has one of the schemas of its config."""
    known = EXTRA_SCHEMAS[config]
    if parquet and parquet.schema_arrow in (*known, *(schema.append(SOURCE) for schema in known)):
        with damaged(name):
            yield from (parquet.read_row_group(group) for group in range(parquet.num_row_groups))
