"""Probes, how they run and what they find: with a timeout each; a probe that hangs is abandoned.

What a probe looks at belongs in `machine` (this machine) and `remote` (archives and the hub).
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from typing import Any, Literal
from urllib.parse import unquote

from neuralpile_dagster.errors import NeuralPileError
from neuralpile_dagster.net.retry import RetryPolicy, without_queries

Status = Literal["ok", "failed", "warning", "not needed", "not tried"]

LIMITS = RetryPolicy(attempts=1, connect_timeout_s=4.0, read_timeout_s=5.0)
"""How probes ask servers: once, and well within the time that a line of the report may take."""
DEADLINE_S = 10.0
_SLOW = (
    "check this machine's network and the server; where the network is merely slow, a build still works: "
    "it waits longer and retries"
)


@dataclass(frozen=True)
class Finding:
    """Result of a probe, and a remedy (empty when nothing has to be done)."""

    status: Status
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Probe:
    """One line of the report before it is known; ``run`` may raise, which makes the line ``failed``."""

    name: str
    run: Callable[[], Finding]


@dataclass(frozen=True)
class Line:
    """One line of the report.

    Attributes
    ----------
    seconds : float
        How long the probe took, or was waited for.
    running : bool
        Whether the probe was still running at its deadline.
    """

    name: str
    finding: Finding
    seconds: float
    running: bool = False

    def document(self) -> dict[str, Any]:
        """The line for the JSON report."""
        return {"name": self.name, **asdict(self.finding), "seconds": round(self.seconds, 2)}


def ok(found: str) -> Finding:
    """Finding of a probe that succeeded."""
    return Finding("ok", found)


def warning(found: str, remedy: str) -> Finding:
    """Finding of a probe that succeeded, with a warning."""
    return Finding("warning", found, remedy)


def failed(found: str, remedy: str) -> Finding:
    """Finding of a required probe that failed."""
    return Finding("failed", found, remedy)


def not_needed(found: str) -> Finding:
    """Finding of a probe that the current settings do not need."""
    return Finding("not needed", found)


def not_tried(found: str) -> Finding:
    """Finding of a probe that needs another one, which failed."""
    return Finding("not tried", found)


def failure(error: NeuralPileError) -> Finding:
    """Convert one of our errors to a finding, with its remedy apart from the text."""
    parts = (
        error.what,
        f"found: {error.found}" if error.found else "",
        f"expected: {error.expected}" if error.expected else "",
    )
    return failed("; ".join(part.rstrip(".; ") for part in parts if part), error.remedy)


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
        text = _PASSWORD_IN_URL.sub("://***@", without_queries(text))
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _longest_first(secrets: Iterable[str]) -> list[str]:
    both = {form for secret in secrets for form in (secret, unquote(secret)) if len(form) >= _SHORTEST}
    return sorted(both, key=len, reverse=True)
