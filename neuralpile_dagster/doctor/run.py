"""The list of all probes of the report, and how they run: with a timeout each; a probe that hangs is abandoned.

What a probe looks at belongs in `machine` (this machine) and `remote` (archives and the hub).
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import SimpleQueue
from urllib.parse import unquote

from neuralpile_dagster.catalog.load import load_catalog
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.doctor.machine import broker, home, imports, plugins, postgres, store, versions
from neuralpile_dagster.doctor.model import Finding, Line, Probe, failed, failure, ok
from neuralpile_dagster.doctor.remote import archive_probes, dataset_probes, figshare_probes, hub
from neuralpile_dagster.errors import NeuralPileError
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.settings import ProcessSettings, Settings

DEADLINE_S = 10.0
_SLOW = (
    "check this machine's network and the server; where the network is merely slow, a build still works: "
    "it waits longer and retries"
)


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
        return ok(
            f"home {settings.home}, archive {settings.archive}, hub {settings.hub}, {plural(len(catalog), 'dataset')}"
        )


def examine(groups: Iterable[Iterable[Probe]], deadline_s: float = DEADLINE_S) -> Iterator[Line]:
    """Run groups of probes at the same time, the probes of a group one after another.

    A group may be a generator: its next probe is requested when the previous one has ended.

    Yields
    ------
    Line
        One per probe as it ends. Secrets of the environment are not in it.
    """
    redact = Redaction(os.environ)
    lines: SimpleQueue[Line | None] = SimpleQueue()

    def run(group: Iterable[Probe]) -> None:
        try:
            for probe in group:
                lines.put(_line(probe, deadline_s, redact))
        finally:
            lines.put(None)

    threads = [threading.Thread(target=run, args=(group,), daemon=True) for group in groups]
    for thread in threads:
        thread.start()
    going = len(threads)
    while going:
        line = lines.get()
        if line is None:
            going -= 1
        else:
            yield line


def _line(probe: Probe, deadline_s: float, redact: Callable[[str], str]) -> Line:
    findings: SimpleQueue[Finding] = SimpleQueue()
    began = time.monotonic()
    thread = threading.Thread(target=lambda: findings.put(_finding(probe)), daemon=True)
    thread.start()
    thread.join(deadline_s)
    running = findings.empty()
    found = failed(f"no result within {deadline_s:g} s", _SLOW) if running else findings.get()
    shown = Finding(found.status, redact(found.found), redact(found.remedy))
    return Line(probe.name, shown, time.monotonic() - began, running)


def _finding(probe: Probe) -> Finding:
    try:
        return probe.run()
    except NeuralPileError as error:
        return failure(error)
    except ImportError as error:
        return failed(f"{error.name or 'a package'} cannot be imported", "see the lines `versions` and `imports`")
    except Exception as error:  # noqa: BLE001 - shown: a failing probe must not hide the others
        return failed(f"{type(error).__name__}: {error}", "report this line as a defect of neuralpile-dagster")


_SECRET_NAME = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD)$")
_PASSWORD_IN_URL = re.compile(r"://[^/\s@:]*:([^/\s@]+)@")
_UNQUOTED_PASSWORD = re.compile(r"://[^/\s@:]*:(\S+)@")  # one that should have been: a key may hold / and @
_URL_QUERY = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]*")  # may be a signature
_SHORTEST = 4
"""Shorter values are words of ordinary text; removing those would reveal more than it hides."""


class Redaction:
    """Remove secrets from text: values of secret environment variables, and passwords in URLs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        named = (value for name, value in environment.items() if _SECRET_NAME.search(name))
        patterns = (_PASSWORD_IN_URL, _UNQUOTED_PASSWORD)
        in_urls = (found for value in environment.values() for each in patterns for found in each.findall(value))
        self._secrets = _longest_first((*named, *in_urls))

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        text = _PASSWORD_IN_URL.sub("://***@", _URL_QUERY.sub(r"\1?...", text))
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _longest_first(secrets: Iterable[str]) -> list[str]:
    both = {form for secret in secrets for form in (secret, unquote(secret)) if len(form) >= _SHORTEST}
    return sorted(both, key=len, reverse=True)
