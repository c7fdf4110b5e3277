"""The DANDI client's HTTP, made patient: time-outs on every request, retries of all that may pass.

`dandi` 0.81 sets no time-outs, does not retry 408, 520 or broken bodies, and
waits a fixed 53 s in all. Its `requests` session takes adapters, which is where
all of this is put right.
"""

from __future__ import annotations

import json
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from neuralpile_dagster.archives.http_errors import host
from neuralpile_dagster.archives.patience import Interrupted, NetworkLimits, interruptions, persevere, worth_retrying


class PatientAdapter(HTTPAdapter):
    """Sends a request until its whole answer is there; then nothing is left to retry for the client above.

    Raises `ArchiveUnavailable`, which the client's own retries let through.
    """

    def __init__(self, limits: NetworkLimits) -> None:
        super().__init__(max_retries=0)
        self._limits = limits

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,
        cert: str | tuple[str, str] | None = None,
        proxies: dict[str, str] | None = None,
    ) -> requests.Response:
        """Send a request; see `requests.adapters.HTTPAdapter.send`."""
        limits = self._limits
        waits = timeout or (limits.connect_timeout_s, limits.read_timeout_s)

        def attempt() -> requests.Response:
            with interruptions():
                response = HTTPAdapter.send(self, request, stream, waits, verify, cert, proxies)
                if not stream:
                    _ = response.content  # a body that breaks off must be noticed here
            if worth_retrying(response.status_code):
                response.close()
                raise Interrupted(f"HTTP status {response.status_code}", response.raw)
            if not stream and response.status_code == 200 and "json" in response.headers.get("Content-Type", ""):
                _require_json(response.content)
            return response

        url = request.url or ""
        return persevere(attempt, f"the API at {host(url)}", url, limits)


def _require_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise Interrupted(f"no complete JSON document ({len(body):,} bytes)") from error
