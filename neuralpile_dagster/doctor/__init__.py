"""``neuralpile doctor``: what works on this machine and, for the rest, what to do.

Every line calls the code that builds use, once and with short timeouts, so that it tests the real behavior.
Nothing is written, and Dagster is not imported. Here is the list of the probes; how they run belongs in `probes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from neuralpile_dagster.catalog.load import load_catalog
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.doctor.machine import broker, home, imports, plugins, postgres, store, versions
from neuralpile_dagster.doctor.probes import Finding, Line, Probe, examine, ok
from neuralpile_dagster.doctor.remote import archive_probes, dataset_probes, figshare_probes, hub
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.settings import ProcessSettings, Settings


def diagnose(dataset: str | None = None) -> Iterator[Line]:
    """Run all probes and yield their lines; without valid settings only those about this machine.

    Parameters
    ----------
    dataset : str, optional
        A dataset of the catalog whose smallest sessions are read besides.
    """
    loaded: list[tuple[Settings, dict[str, Dataset]]] = []

    def instance() -> Finding:
        """Read the environment and ``catalog.yaml``."""
        settings = Settings.from_environment()
        ProcessSettings.from_environment()
        catalog = load_catalog(settings)
        loaded.append((settings, catalog))
        return ok(
            f"home {settings.home}, archive {settings.archive}, hub {settings.hub}, {plural(len(catalog), 'dataset')}"
        )

    yield from examine([[Probe("versions", versions), Probe("imports", imports), Probe("settings", instance)]])
    for settings, catalog in loaded:
        yield from examine(_probes(settings, catalog, dataset))


def _probes(settings: Settings, catalog: Mapping[str, Dataset], dataset: str | None) -> list[Iterable[Probe]]:
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
