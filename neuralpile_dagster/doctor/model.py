"""Models of the doctor: probes, how they ask servers, findings, and the lines of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypedDict

from neuralpile_dagster.errors import NeuralPileError
from neuralpile_dagster.net.retry import RetryPolicy

Status = Literal["ok", "failed", "warning", "not needed", "not tried"]

LIMITS = RetryPolicy(attempts=1, connect_timeout_s=4.0, read_timeout_s=5.0)
"""How probes ask servers: once, and well within the time that a line of the report may take."""


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


class LineDocument(TypedDict):
    """A `Line` in the JSON report."""

    name: str
    status: Status
    found: str
    remedy: str
    seconds: float


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

    def document(self) -> LineDocument:
        """The line for the JSON report."""
        finding = self.finding
        return {
            "name": self.name,
            "status": finding.status,
            "found": finding.found,
            "remedy": finding.remedy,
            "seconds": round(self.seconds, 2),
        }


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
