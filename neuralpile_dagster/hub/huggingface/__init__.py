"""The Hugging Face Hub: what can be published to it and read from it.

How is in the modules beside this one: `publishing` and `upload` send, `read` reads, `client` is what they send with.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, cast

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.hf_api import RepoFile

from neuralpile_dagster.errors import HubError
from neuralpile_dagster.hub import Publication, RepositoryFile, check_repository_name, list_folder
from neuralpile_dagster.hub.huggingface.client import HUB_POLICY, Secrets, explained, install
from neuralpile_dagster.hub.huggingface.publishing import Publishing, repository_info
from neuralpile_dagster.hub.huggingface.read import PinnedRepository, remote_files
from neuralpile_dagster.hub.huggingface.upload import Limits
from neuralpile_dagster.net.http import USER_AGENT
from neuralpile_dagster.net.retry import RetryPolicy
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.settings import ProcessSettings

_BUFFER_BYTES = 1 << 18


class HuggingFaceHub:
    """A `neuralpile_dagster.hub.Hub` on huggingface.co, or wherever ``endpoint`` is.

    Reading methods also take ``owner/name``: any repository that the token may read.

    Parameters
    ----------
    namespace : str
        User or organization that owns the published repositories.
    endpoint, token : str, optional
        As huggingface_hub finds them when not given (HF_ENDPOINT, HF_TOKEN, a stored login).
    private : bool
        Whether new repositories are private. When true, nothing is sent to a public one.
    policy : RetryPolicy
        Time-outs and waits of every call.
    **limits : int
        See `upload.Limits`.
    """

    def __init__(
        self,
        namespace: str,
        endpoint: str | None = None,
        token: str | None = None,
        private: bool = False,
        *,
        policy: RetryPolicy | None = None,
        **limits: int,
    ) -> None:
        self.namespace = check_repository_name(namespace)
        # huggingface_hub takes an empty HF_ENDPOINT for an endpoint
        self.endpoint = (endpoint or constants.ENDPOINT or "https://huggingface.co").rstrip("/")
        self._private = private
        self._policy = policy or HUB_POLICY
        self._limits = Limits(**limits)
        self._secrets = Secrets(token or get_token())
        self._api = HfApi(endpoint=self.endpoint, token=self._secrets.token, user_agent=USER_AGENT)

    @classmethod
    def from_environment(
        cls, namespace: str, environment: Mapping[str, str] | None = None, policy: RetryPolicy | None = None
    ) -> HuggingFaceHub:
        """Read HF_TOKEN, HF_ENDPOINT and the `ProcessSettings`."""
        env = os.environ if environment is None else environment
        private = ProcessSettings.from_environment(env).private
        token = env.get("HF_TOKEN") or None
        return cls(namespace, env.get("HF_ENDPOINT") or None, token, private, policy=policy)

    def __repr__(self) -> str:
        return f"HuggingFaceHub({self.namespace!r}, {self.endpoint!r}, private={self._private})"

    def path(self, name: str) -> str:
        """The repository's full name, which `datasets.load_dataset` takes; ``owner/name`` stays as it is."""
        owner, slash, short = name.rpartition("/")
        return f"{check_repository_name(owner if slash else self.namespace)}/{check_repository_name(short)}"

    def require_credentials(self) -> None:
        """See `Hub.require_credentials`."""
        if self._secrets.token is None:
            raise HubError(f"{self.endpoint} cannot be published to", found="no token", remedy="set HF_TOKEN")

    def publish(self, name: str, folder: Path, progress: Progress = print) -> Publication:
        """See `Hub.publish`; the version is the tag ``v<date>-<digest>``.

        Raises `HubError` when the token is missing or may not write.
        """
        self.require_credentials()
        repository = self.path(name)
        progress(f"{repository}: reading {folder}")
        files = list_folder(folder)
        install(self.endpoint, self._policy)
        publishing = Publishing(
            self._api, repository, self._private, folder, files, self._policy, self._limits, self._secrets, progress
        )
        tag = publishing.run()
        progress(f"{repository}: version {tag} {'published' if publishing.committing else 'is already published'}")
        return Publication(
            repository=repository,
            version=tag,
            url=self.page(repository),
            changed=publishing.committing,
            files=files,
            bytes_sent=publishing.bytes_sent,
        )

    def account(self) -> dict[str, Any]:
        """Whose the token is and what it may do: the response of ``/api/whoami-v2``.

        Raises `HubError` when there is no token or the Hub refuses it.
        """
        self.require_credentials()
        with self._explained(self.namespace, f"identifying the owner of the token at {self.endpoint}"):
            return self._api.whoami()

    def files(self, name: str) -> tuple[RepositoryFile, ...]:
        """See `Hub.files`. Small files, whose sha256 the Hub does not know, are read."""
        repository = self.path(name)
        with self._explained(repository, "listing its files"):
            info = repository_info(self._api, repository)
            if info is None:
                return ()
            head = info.sha or "main"
            rows = remote_files(self._api, repository, head)
            pinned = self._pinned(repository, head, rows.values())
            return tuple(_described(pinned, row) for _, row in sorted(rows.items()))

    def open(self, name: str, path: str) -> BinaryIO:
        """See `Hub.open`. Raises `HubError` when the repository has no such file.

        All reads see the commit that was current when the file was opened.
        """
        repository = self.path(name)
        with self._explained(repository, f"opening {path}"):
            head = self._api.dataset_info(repository, revision="main").sha or "main"
            rows = self._api.get_paths_info(repository, [path], revision=head, repo_type="dataset")
        pinned = self._pinned(repository, head, [row for row in rows if isinstance(row, RepoFile)])
        if path not in pinned.sizes:
            raise HubError(f"{repository} has no file {path}", remedy="correct the name, or publish the dataset first")
        # with a small read-ahead; large reads go past it
        return cast("BinaryIO", io.BufferedReader(pinned.open(path), _BUFFER_BYTES))

    def pin(self, name: str, revision: str | None = None) -> PinnedRepository:
        """The files of one commit: that of ``revision`` (a branch, tag or commit), or of main.

        Raises `HubError` when there is no such repository or revision.
        """
        repository = self.path(name)
        with self._explained(repository, f"looking up revision {revision or 'main'}"):
            commit = self._api.dataset_info(repository, revision=revision or "main").sha or "main"
            return self._pinned(repository, commit, remote_files(self._api, repository, commit).values())

    def _pinned(self, repository: str, commit: str, rows: Iterable[RepoFile]) -> PinnedRepository:
        sizes = {row.path: row.size for row in rows}
        return PinnedRepository(repository, commit, sizes, self.endpoint, self._secrets, self._policy)

    def page(self, name: str) -> str:
        """See `Hub.page`."""
        return f"{self.endpoint}/datasets/{self.path(name)}"

    def _explained(self, repository: str, doing: str) -> AbstractContextManager[None]:
        install(self.endpoint, self._policy)
        return explained(repository, doing, self._secrets)


def _described(pinned: PinnedRepository, row: RepoFile) -> RepositoryFile:
    if row.lfs is not None:
        return RepositoryFile(row.path, row.size, row.lfs.sha256)
    with pinned.open(row.path) as file:
        return RepositoryFile(row.path, row.size, hashlib.sha256(file.readall()).hexdigest())
