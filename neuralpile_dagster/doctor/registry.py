"""The list of all probes of the report; each probe belongs in a module of its own subject."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from neuralpile_dagster.catalog.load import load_catalog
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.doctor.archives import archive_probes, dataset_probes, figshare_probes
from neuralpile_dagster.doctor.cluster import broker, postgres
from neuralpile_dagster.doctor.hub import hub
from neuralpile_dagster.doctor.machine import home, imports, plugins, store, versions
from neuralpile_dagster.doctor.model import Finding, Line, Probe, ok
from neuralpile_dagster.doctor.run import examine
from neuralpile_dagster.settings import ProcessSettings, Settings


def diagnose(dataset: str | None = None) -> Iterator[Line]:
    """Run all probes and yield their lines; without valid settings only those about this machine.

    Parameters
    ----------
    dataset : str, optional
        A dataset of the catalog whose smallest sessions are read besides.
    """
    instance = _Instance()
    yield from examine([[Probe("versions", versions), Probe("imports", imports), Probe("settings", instance.load)]])
    if instance.loaded is not None:
        yield from examine(probes(*instance.loaded, dataset))


def probes(settings: Settings, catalog: Mapping[str, Dataset], dataset: str | None) -> list[Iterable[Probe]]:
    """The probes that need settings, in groups that run at the same time."""
    return [
        [Probe("home", lambda: home(settings))],
        [Probe("plugins", plugins)],
        [Probe("store", lambda: store(settings))],
        archive_probes(settings, catalog),
        figshare_probes(settings, catalog),
        [Probe("hub", lambda: hub(settings))],
        [Probe("postgres", lambda: postgres(settings))],
        [Probe("broker", lambda: broker(settings))],
        dataset_probes(settings, catalog, dataset) if dataset else (),
    ]


class _Instance:
    """Settings and catalog of the instance; ``loaded`` is None while one of them is invalid."""

    def __init__(self) -> None:
        self.loaded: tuple[Settings, dict[str, Dataset]] | None = None

    def load(self) -> Finding:
        """Read the environment and ``catalog.yaml``."""
        settings = Settings.from_environment()
        ProcessSettings.from_environment()
        catalog = load_catalog(settings)
        self.loaded = settings, catalog
        return ok(f"home {settings.home}, archive {settings.archive}, hub {settings.hub}, {len(catalog)} datasets")
