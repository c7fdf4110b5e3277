"""Read repositories of the Hub: the lists of their files, and single files by ranges.

huggingface_hub follows links to further pages without limit, and raises a bare `TypeError` for an invalid page: lists
are read here with a limit of pages and an error for invalid entries. What they are used for belongs in `publishing`
and `hub`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, get_session, hf_hub_download, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers

from neuralpile_dagster.errors import HubError, HubUnavailable
from neuralpile_dagster.hub.huggingface.client import HubGaveUp, Secrets, asked_wait_s, explain, explained, install
from neuralpile_dagster.net.range_file import RangeFile
from neuralpile_dagster.net.retry import AttemptFailed, RetryPolicy, retry_call, worth_retrying

MAX_PAGES = 1000
"""Pages of one list; the Hub gives a thousand files a page."""
_KEPT = (".gitattributes",)
"""Files that the Hub itself adds to a repository: neither published, nor listed, nor deleted."""
_REQUEST_BYTES = 1 << 24
"""Most bytes asked for at once: what a broken connection can cost."""


def remote_files(api: HfApi, repository: str, revision: str) -> dict[str, RepoFile]:
    """The files of a revision, by path.

    Raises `HubError` for a list that does not end or is not understood, and what huggingface_hub raises.
    """
    files: dict[str, RepoFile] = {}
    for row in _rows(api, repository, revision):
        try:
            if row["type"] != "file":
                continue
            file = RepoFile(**row)
            is_valid = isinstance(file.path, str) and isinstance(file.size, int) and isinstance(file.blob_id, str)
        except (LookupError, TypeError, AttributeError, ValueError):
            is_valid = False
        if not is_valid:
            raise _not_understood(repository, f"the entry {str(row)[:200]}")
        if file.path in files:
            raise _endless(repository, f"{file.path} twice")
        files[file.path] = file
    return {path: file for path, file in files.items() if path not in _KEPT}


def _rows(api: HfApi, repository: str, revision: str) -> Iterator[dict[str, Any]]:
    """The entries of all pages of the list."""
    url, seen = f"{api.endpoint}/api/datasets/{repository}/tree/{revision}?recursive=true", set()
    for _ in range(MAX_PAGES):
        seen.add(url)
        response = get_session().get(url, headers=build_hf_headers(token=api.token))
        hf_raise_for_status(response)
        page = response.json()
        if not isinstance(page, list) or not all(isinstance(row, dict) for row in page):
            raise _not_understood(repository, f"{type(page).__name__} {str(page)[:200]}")
        yield from page
        url = response.links.get("next", {}).get("url", "")
        if not url:
            return
        if url in seen:
            raise _endless(repository, "a link to a page that was read before")
    raise _endless(repository, f"more than {MAX_PAGES:,} pages")


def _endless(repository: str, found: str) -> HubError:
    return HubError(
        f"the list of the files of {repository} does not end",
        found=found,
        expected="every entry once, on a limited number of pages",
        remedy="check HF_ENDPOINT; report it to the hub's administrators if it is theirs",
    )


def _not_understood(repository: str, found: str) -> HubError:
    return HubError(
        f"the list of the files of {repository} was not understood",
        found=found,
        expected="a JSON list of objects, as the Hugging Face Hub gives it",
        remedy="check HF_ENDPOINT; upgrade neuralpile-dagster if the hub is newer",
    )


class HubFile(RangeFile):
    """A file of one commit, read by ranges; the length of every response is checked.

    Responses may come from another host than the hub's (its storage), whose requests the
    module `client` sends once: so they are retried here. Raises `HubUnavailable`.
    """

    def __init__(self, repository: PinnedRepository, path: str) -> None:
        super().__init__(repository.sizes[path])
        self.name = f"{repository.name}/{path}"
        self._policy, self._secrets = repository.policy, repository.secrets
        self._url = hf_hub_url(
            repository.name, path, repo_type="dataset", revision=repository.commit, endpoint=repository.endpoint
        )
        self._headers = {**build_hf_headers(token=self._secrets.token), "Accept-Encoding": "identity"}

    def fill(self, start: int, target: memoryview) -> int:
        """See `RangeFile.fill`; one request."""
        wanted = min(len(target), _REQUEST_BYTES)
        try:
            target[:wanted] = retry_call(lambda: self._get(start, start + wanted), self.name, self._policy)
        except AttemptFailed as failure:
            raise HubUnavailable(
                f"{self.name} cannot be read",
                found=f"{failure.reason}, after {self._policy.attempts} attempts",
                expected=f"bytes {start:,} to {start + wanted:,} of {self.size:,}",
                remedy="try again later",
            ) from None
        return wanted

    def _get(self, start: int, stop: int) -> bytes:
        try:
            response = get_session().get(self._url, headers={**self._headers, "Range": f"bytes={start}-{stop - 1}"})
            hf_raise_for_status(response)
        except HubGaveUp:
            raise
        except HfHubHTTPError as error:
            status = error.response.status_code
            if worth_retrying(status):
                raise AttemptFailed(f"status {status}", asked_wait_s(error.response.headers)) from error
            problem = explain(error, self.name, "reading it", self._secrets)
            raise problem.error from problem.cause
        except httpx2.TransportError as error:
            raise AttemptFailed(self._secrets.redact(f"{type(error).__name__}: {error}")) from error
        if response.status_code != 206 or len(response.content) != stop - start:
            reason = f"status {response.status_code} and {len(response.content):,} bytes"
            raise AttemptFailed(reason, asked_wait_s(response.headers))
        return response.content


@dataclass(frozen=True)
class PinnedRepository:
    """The files of one commit of a repository, ``owner/name``; ``sizes`` are their bytes by path. May be pickled."""

    name: str
    commit: str
    sizes: Mapping[str, int]
    endpoint: str
    secrets: Secrets
    policy: RetryPolicy

    def open(self, path: str) -> HubFile:
        """Open a file by ranges; several threads may `HubFile.fill` at a time."""
        install(self.endpoint, self.policy)
        return HubFile(self, path)

    def download(self, path: str) -> Path:
        """The file in huggingface_hub's cache (``HF_HOME``), fetched if it is not there; raises as `Hub.open`."""
        install(self.endpoint, self.policy)
        with explained(self.name, f"downloading {path}", self.secrets):
            found = hf_hub_download(
                self.name,
                path,
                repo_type="dataset",
                revision=self.commit,
                endpoint=self.endpoint,
                token=self.secrets.token,
            )
        return Path(found)
