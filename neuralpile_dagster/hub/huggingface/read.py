"""Read one file of a repository by ranges."""

from __future__ import annotations

import io
import os
import time

import httpx2
from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers

from neuralpile_dagster.errors import HubUnavailable
from neuralpile_dagster.hub.huggingface.errors import Secrets, explain
from neuralpile_dagster.hub.huggingface.retry import HubGaveUp, RetryPolicy
from neuralpile_dagster.net.http import worth_retrying

_REQUEST_BYTES = 1 << 24
"""Most bytes asked for at once: what a broken connection can cost."""
_BUFFER_BYTES = 1 << 18


class RangeFile(io.RawIOBase):
    """A seekable file over HTTP ranges, of one commit; every reply's length is checked.

    Replies may come from another host than the hub's (its storage), which the
    retrying client leaves alone: so attempts are counted here. Raises `HubUnavailable`.
    """

    def __init__(
        self, repository: str, path: str, revision: str, size: int, endpoint: str, secrets: Secrets, policy: RetryPolicy
    ) -> None:
        self.name = f"{repository}/{path}"
        self._secrets = secrets
        self._url = hf_hub_url(repository, path, repo_type="dataset", revision=revision, endpoint=endpoint)
        self._headers = {**build_hf_headers(token=secrets.token), "Accept-Encoding": "identity"}
        self._size = size
        self._policy = policy
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as one request goes; 0 at the end of the file."""
        stop = min(self._at + len(buffer), self._at + _REQUEST_BYTES, self._size)
        if stop <= self._at:
            return 0
        content = self._fetch(self._at, stop)
        buffer[: len(content)] = content
        self._at = stop
        return len(content)

    def _fetch(self, start: int, stop: int) -> bytes:
        headers = {**self._headers, "Range": f"bytes={start}-{stop - 1}"}
        for attempt in range(self._policy.attempts):
            asked = httpx2.Headers()
            try:
                response = get_session().get(self._url, headers=headers)
                asked = response.headers
                hf_raise_for_status(response)
                if response.status_code == 206 and len(response.content) == stop - start:
                    return response.content
                trouble = f"status {response.status_code} and {len(response.content):,} bytes"
            except HubGaveUp:
                raise
            except HfHubHTTPError as error:
                if not worth_retrying(error.response.status_code):
                    problem = explain(error, self.name, "reading it", self._secrets)
                    raise problem.error from problem.cause
                trouble = f"status {error.response.status_code}"
            except httpx2.TransportError as error:
                trouble = self._secrets.redact(f"{type(error).__name__}: {error}")
            if attempt + 1 < self._policy.attempts:
                time.sleep(min(self._policy.wait_s(attempt, asked), self._policy.longest_asked_wait_s))
        raise HubUnavailable(
            f"{self.name} cannot be read",
            found=f"{trouble}, {self._policy.attempts} times",
            expected=f"bytes {start:,} to {stop:,} of {self._size:,}",
            remedy="try again later",
        )


def buffered(file: RangeFile) -> io.BufferedReader:
    """The file with a small read-ahead; large reads go past it."""
    return io.BufferedReader(file, _BUFFER_BYTES)
