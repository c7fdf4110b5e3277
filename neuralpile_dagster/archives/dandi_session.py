"""The DANDI client's HTTP, made patient: time-outs on every request, retries of all that may pass.

`dandi` 0.81 sets no time-outs, does not retry 408, 520 or broken bodies, and
waits a fixed 53 s in all. Its `requests` session takes adapters, which is where
all of this is put right.
"""

from __future__ import annotations

import requests
from requests.adapters import HTTPAdapter

from neuralpile_dagster.archives.answers import read_answer, understand_json
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

        url = request.url or ""
        what = f"the API at {host(url)}"

        def attempt() -> requests.Response:
            with interruptions(what, url):
                response = HTTPAdapter.send(self, request, True, waits, verify, cert, proxies)
                if not stream:
                    _take_body(what, response, limits)
            if worth_retrying(response.status_code):
                response.close()
                raise Interrupted(f"HTTP status {response.status_code}", response.raw)
            if not stream and response.status_code == 200 and "json" in response.headers.get("Content-Type", ""):
                understand_json(what, response.content)
            return response

        return persevere(attempt, what, url, limits)


def _take_body(what: str, response: requests.Response, limits: NetworkLimits) -> None:
    """Read the body here, where one that breaks off, trickles or does not end is noticed."""
    try:
        response._content = read_answer(what, response.raw, limits)
        response._content_consumed = True
    except BaseException:
        response.close()
        raise
    response.raw.release_conn()
