"""Which components a pile is made of, and how their files are opened: from the store, or back from a hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from neuralpile_dagster.catalog.load import get_dataset
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.errors import MergeError
from neuralpile_dagster.hub.model import Hub
from neuralpile_dagster.merge.sources import PileSource, SourceFile, source_from_component, source_from_parquet
from neuralpile_dagster.orchestration import locations
from neuralpile_dagster.publish.configs import open_published
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store

_ON_HUB = "hub:"


@dataclass(frozen=True)
class Chosen:
    """The components of a pile in catalog order, the repositories they are on the hub, and why others are left out."""

    sources: tuple[PileSource, ...]
    repositories: dict[str, str]
    left_out: dict[str, str]
    synthetic: bool


def file_opener(store: Store, hub: Hub) -> Callable[[str], pa.NativeFile]:
    """Opens a planned file by its name, wherever it is."""

    def open_file(name: str) -> pa.NativeFile:
        return _open_planned(hub, name) if name.startswith(_ON_HUB) else store.open(name)

    return open_file


def _open_planned(hub: Hub, name: str) -> pa.NativeFile:
    repository, path = name.removeprefix(_ON_HUB).split(":", 1)
    return open_published(hub, repository, path)


def _from_hub(hub: Hub, repository: str) -> PileSource:
    files = [
        SourceFile(name=f"{_ON_HUB}{repository}:{file.path}", size=file.size, sha256=file.sha256)
        for file in hub.files(repository)
        if file.path.startswith("data/train-") and file.path.endswith(".parquet")
    ]
    if not files:
        raise MergeError(
            f"{repository} cannot be merged",
            found="no data/train-*.parquet in it",
            expected="a published repository with the row schema",
            remedy="correct `components` or `extra_repositories`, or publish it first",
        )
    return source_from_parquet(repository, files, partial(_open_planned, hub))


def choose_components(
    datasets: Sequence[Dataset],
    store: Store,
    hub: Hub,
    settings: Settings,
    *,
    components: Sequence[str],
    extra_repositories: Sequence[str],
    merge_from: str,
) -> Chosen:
    """The sources of a pile.

    Parameters
    ----------
    components : sequence of str
        Names of datasets; empty for all that are published.
    extra_repositories : sequence of str
        Repositories of other people with the row schema, always read from the hub.
    merge_from : {"store", "hub"}
        Where the rows of our own components are read.

    Raises
    ------
    MergeError, ConfigurationError
        A named component is not published, or nothing is.
    """
    by_name = {dataset.name: dataset for dataset in datasets}
    named = {get_dataset(by_name, name).name for name in components}
    sources, left_out, synthetic = [], {}, False
    for dataset in datasets:
        published = locations.read_published(store, dataset, settings)
        if named and dataset.name not in named:
            continue
        if published is None:
            if named:
                locations.require_published(store, dataset, settings)
            left_out[dataset.name] = "not published with these settings"
            continue
        name = locations.repository_name(dataset, settings)
        synthetic = synthetic or published.synthetic
        in_store = merge_from == "store"
        sources.append(source_from_component(name, published.sessions) if in_store else _from_hub(hub, name))
    repositories = {source.name: source.name for source in sources}
    for repository in extra_repositories:
        sources.append(_from_hub(hub, repository))
        repositories[sources[-1].name] = repository
    if not sources:
        raise MergeError(
            "there is nothing to merge",
            found="no published component",
            expected="at least one",
            remedy="publish a component first, e.g. neuralpile build steinmetz",
        )
    return Chosen(tuple(sources), repositories, left_out, synthetic)
