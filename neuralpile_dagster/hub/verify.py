"""Verify a published repository by reading it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq

from neuralpile_dagster.errors import HubUnavailable
from neuralpile_dagster.hub import Hub, RepositoryFile, card_metadata, list_folder

CARD = "README.md"
_ROWS_AT_A_TIME = 1000
"""A table of motifs has a million rows in its first row group; one by one they took 8 s of CPU."""


@dataclass(frozen=True)
class _Split:
    config: str
    name: str
    paths: tuple[str, ...]
    num_examples: int | None


def verify_publication(hub: Hub, name: str, folder: Path) -> list[str]:
    """Compare repository ``name`` with the folder that it was published from.

    Looked at are the files and their digests, the card's counts beside the
    footers of the published shards, and the first row of every split of every
    config, read by `datasets.load_dataset` without downloading the rest.

    Parameters
    ----------
    hub : Hub
        `local.LocalHub` or `huggingface.HuggingFaceHub`. `datasets` finds a
        Hugging Face Hub by HF_ENDPOINT, as it was when `datasets` was imported.
    name : str
    folder : Path

    Returns
    -------
    list of str
        One sentence per difference; empty when there is none.

    Raises
    ------
    HubUnavailable
        The hub cannot be reached, so nothing can be said.
    """
    wanted = {file.path: file for file in list_folder(folder)}
    found = {file.path: file for file in hub.files(name)}
    differences = list(_file_differences(wanted, found))
    if CARD not in found:
        return [*differences, "there is no card"]
    with hub.open(name, CARD) as file:
        card = file.read().decode()
    splits, sizes = _splits(card, found)
    if not splits:
        differences.append("the card names no config")
    differences += _count_differences(hub, name, splits, found, sizes)
    load = cache(partial(_load_config, str(hub.path(name))))  # for all of its splits: each time it reads the card
    for split in splits:
        differences += _first_row_differences(load, name, split, folder)
    return differences


def _file_differences(wanted: Mapping[str, RepositoryFile], found: Mapping[str, RepositoryFile]) -> Iterator[str]:
    for path in sorted(wanted.keys() | found.keys()):
        if path not in found:
            yield f"{path} is missing"
        elif path not in wanted:
            yield f"{path} should not be there"
        elif wanted[path] != found[path]:
            yield (
                f"{path} has other content: {found[path].size:,} bytes, sha256 {found[path].sha256[:16]}, "
                f"instead of {wanted[path].size:,} bytes, sha256 {wanted[path].sha256[:16]}"
            )


def _splits(card: str, found: Mapping[str, RepositoryFile]) -> tuple[list[_Split], dict[str, int | None]]:
    """The splits that a card names, with their files; and ``download_size`` by config."""
    data = card_metadata(card)
    infos = data.get("dataset_info", [])
    by_config: dict[str, Any] = {
        info.get("config_name", "default"): info for info in (infos if isinstance(infos, list) else [infos])
    }
    splits = []
    for config in data.get("configs", []):
        info = by_config.get(config["config_name"], {})
        counts = {split["name"]: split.get("num_examples") for split in info.get("splits", [])}
        for files in config["data_files"]:
            paths = tuple(sorted(path for path in found if fnmatchcase(path, files["path"])))
            splits.append(_Split(config["config_name"], files["split"], paths, counts.get(files["split"])))
    return splits, {name: info.get("download_size") for name, info in by_config.items()}


def _count_differences(
    hub: Hub, name: str, splits: list[_Split], found: Mapping[str, RepositoryFile], sizes: Mapping[str, int | None]
) -> Iterator[str]:
    for split in splits:
        rows = sum(_rows(hub, name, path) for path in split.paths)
        if rows != split.num_examples:
            yield f"{split.config}/{split.name} has {rows:,} rows, and the card says {split.num_examples}"
    for config, size in sizes.items():
        bytes_found = sum(found[path].size for split in splits if split.config == config for path in split.paths)
        if bytes_found != size:
            yield f"{config} has {bytes_found:,} bytes of files, and the card says {size}"


def _rows(hub: Hub, name: str, path: str) -> int:
    with hub.open(name, path) as file:
        return int(pq.read_metadata(pa.PythonFile(file, mode="r")).num_rows)


def _load_config(repository: str, config: str) -> Mapping[str, Any]:
    """Streams of a config's rows by split."""
    from datasets import load_dataset

    splits: Mapping[str, Any] = load_dataset(repository, config, streaming=True)
    return splits


def _first_row_differences(
    load: Callable[[str], Mapping[str, Any]], name: str, split: _Split, folder: Path
) -> Iterator[str]:
    from datasets.exceptions import DatasetsError

    where = f"{split.config}/{split.name}"
    local = [folder / path for path in split.paths if (folder / path).is_file()]
    if not local:
        yield f"{where} has no files"
        return
    try:
        row = _first_row(load(split.config)[split.name])
    except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
        raise HubUnavailable(f"{name}: {where} could not be read", found=type(error).__name__) from None
    except (DatasetsError, ValueError, TypeError, KeyError, pa.ArrowException, FileNotFoundError) as error:
        text = str(error).splitlines()
        yield f"load_dataset cannot read {where}: {type(error).__name__}: {text[0] if text else ''}"
        return
    expected = next(pq.ParquetFile(local[0]).iter_batches(batch_size=1), None)
    if row is None or expected is None:
        if (row is None) != (expected is None):
            yield f"{where}: load_dataset gives {'no' if row is None else 'a'} first row, unlike {local[0].name}"
    elif row.schema.names != expected.schema.names or not row.cast(expected.schema).equals(
        pa.Table.from_batches([expected])
    ):
        yield f"{where}: the first row that load_dataset gives is not the first row of {local[0].name}"


def _first_row(stream: Any) -> pa.Table | None:
    # Read the first row group to its end: a process that leaves a stream early may never exit (apache/arrow#45214).
    row_groups = stream.shard(stream.num_shards, 0).reshard()
    if not row_groups.num_shards:
        return None
    first: pa.Table | None = None
    for rows in row_groups.shard(row_groups.num_shards, 0).with_format("arrow").iter(batch_size=_ROWS_AT_A_TIME):
        first = rows.slice(0, 1) if first is None else first
    return first
