"""Faults that a test server injects into its answers, on order.

A `Fault` strikes the next ``times`` requests whose method and path match, after
letting ``skip`` of them pass. `neuralpile_dagster_tests.servers.http.Server`
applies them; what an application answers is not touched otherwise.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "status", "reset", "hang", "reset_mid_body", "short_body", "short_unmarked", "hang_mid_body", "trickle", "flip"
]


@dataclass(frozen=True)
class Fault:
    """One kind of trouble.

    Attributes
    ----------
    kind : str
        ``status``: answer ``status`` with ``headers`` and ``body`` instead.
        ``reset``, ``hang``: no answer; the connection is reset, or stays silent.
        ``reset_mid_body``, ``hang_mid_body``: the same after half of the body.
        ``short_body``: Content-Length of the whole body, half of it, end of connection.
        ``short_unmarked``: no Content-Length, half of the body, end of connection.
        ``trickle``: the body one byte at a time, for about ten seconds; then the end of the connection.
        ``flip``: one byte in the middle of the body is inverted.
    method, path : str
        Regular expressions; ``path`` is searched in path and query as sent.
    times, skip : int
        How many matching requests it strikes, and how many it lets pass before.
    only_if : callable, optional
        Called with the request's headers (lower-case names); strikes only when true.
    after_serving : bool
        For ``status``, ``reset`` and ``hang``: let the application do its work first
        (the reply is lost, not the request).
    """

    kind: Kind
    method: str = ".*"
    path: str = ".*"
    times: int = 1
    skip: int = 0
    status: int = 500
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b"injected fault"
    only_if: Callable[[dict[str, str]], bool] | None = None
    after_serving: bool = False

    def matches(self, method: str, target: str, headers: dict[str, str]) -> bool:
        """Whether this fault is meant for such a request."""
        return (
            re.fullmatch(self.method, method) is not None
            and re.search(self.path, target) is not None
            and (self.only_if is None or self.only_if(headers))
        )


def status(code: int, retry_after: float | str | None = None, **match: object) -> Fault:
    """A fault that answers with a status, and Retry-After where given; ``match``: other fields of `Fault`."""
    headers = () if retry_after is None else (("Retry-After", str(retry_after)),)
    return Fault("status", status=code, headers=headers, **match)  # type: ignore[arg-type]


@dataclass
class Faults:
    """The faults that a server still owes; thread-safe. ``struck`` lists what happened."""

    struck: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._owed: list[list[int]] = []  # [left to skip, left to strike] of the fault at the same place
        self._faults: list[Fault] = []

    def add(self, *faults: Fault) -> None:
        """Order faults; the first that matches a request strikes it."""
        with self._lock:
            for fault in faults:
                self._faults.append(fault)
                self._owed.append([fault.skip, fault.times])

    def clear(self) -> None:
        """Forget all faults that did not strike yet."""
        with self._lock:
            self._faults.clear()
            self._owed.clear()

    def take(self, method: str, target: str, headers: dict[str, str]) -> Fault | None:
        """The fault for this request, if one is due; counts it as struck."""
        with self._lock:
            for fault, owed in zip(self._faults, self._owed, strict=True):
                if owed[1] == 0 or not fault.matches(method, target, headers):
                    continue
                if owed[0] > 0:
                    owed[0] -= 1
                    continue
                owed[1] -= 1
                self.struck.append((fault.kind, method, target))
                return fault
        return None
