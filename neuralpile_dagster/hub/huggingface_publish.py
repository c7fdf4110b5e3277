"""One publication: plan, upload, one commit; on any trouble look again and plan anew.

Contents are sent before a commit names them and are found there by the next
attempt, so what the Hub has taken is not sent again; the commit is pinned to the head that the
plan was made for, so it lands whole on what was seen, or not at all. A commit
whose reply was lost is found by looking, never by sending it again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import DatasetInfo

from neuralpile_dagster.errors import HubConflict, HubError, HubUnavailable
from neuralpile_dagster.hub.contents import version_digest
from neuralpile_dagster.hub.huggingface_commit import Operation, commit
from neuralpile_dagster.hub.huggingface_errors import FAILURES, Secrets, explain
from neuralpile_dagster.hub.huggingface_plan import Plan, make_plan, remote_files, version_tag
from neuralpile_dagster.hub.huggingface_upload import Limits, upload
from neuralpile_dagster.hub.model import RepositoryFile
from neuralpile_dagster.hub.retrying import RetryPolicy
from neuralpile_dagster.progress import Progress


@dataclass
class Publishing:
    """Makes ``repository`` hold exactly ``files``, which lie below ``folder``.

    ``committing`` and ``bytes_sent`` tell afterwards what it took;
    ``doing`` completes "failed while ...".
    """

    api: HfApi
    repository: str
    private: bool
    folder: Path
    files: tuple[RepositoryFile, ...]
    policy: RetryPolicy
    limits: Limits
    secrets: Secrets
    progress: Progress
    doing: str = "looking at the repository"
    committing: bool = False
    bytes_sent: int = 0

    def run(self) -> str:
        """The version's tag, once the repository holds the files.

        Raises `HubUnavailable` or `HubConflict` when ``limits.plans`` plans
        failed, `HubError` at once when trying again cannot help.
        """
        for attempt in range(self.limits.plans):
            try:
                return self._attempt()
            except FAILURES as error:
                problem = explain(error, self.repository, self.doing, self.secrets)
            if attempt + 1 == self.limits.plans or not problem.passing:
                raise problem.error from problem.cause
            wait = min(self.policy.wait_s(attempt, problem.headers), self.policy.longest_asked_wait_s)
            self.progress(f"{self.repository}: {problem.error} Looking again in {wait:.0f} s.")
            time.sleep(wait)
        raise AssertionError("Limits.plans is at least 1")

    def _attempt(self) -> str:
        """Make one plan, apply it, look at what came of it, and give the version's tag."""
        self.doing = "looking at the repository"
        try:
            head = self._head()
        except RevisionNotFoundError:  # somebody else creates it at this moment; `run` looks again
            raise HubUnavailable(f"{self.repository} has no main yet", remedy="try again") from None
        plan = self._plan(head)
        if not plan.nothing:
            made = self._apply(plan)
            head = made or self._head()
            self._require_whole(head, merged=made is None)
        self.doing = "tagging the version"
        tags = {tag.name for tag in self.api.list_repo_refs(self.repository, repo_type="dataset").tags}
        version = version_tag(self.files, tags)
        if version not in tags:
            self.api.create_tag(self.repository, tag=version, revision=head, repo_type="dataset", exist_ok=True)
        return version

    def _plan(self, head: str) -> Plan:
        return make_plan(self.folder, self.files, head, remote_files(self.api, self.repository, head))

    def _require_whole(self, made: str, merged: bool) -> None:
        """Raise `HubError` unless our commit holds all files: the Hub leaves out what a .gitignore names.

        After a merge it is a `HubConflict`: somebody's commit may have slipped in before or after it.
        """
        self.doing = "looking at the new commit"
        left = self._plan(made)
        if left.nothing:
            return
        found = f"other or missing: {[file.path for file in left.add][:5]}, left: {list(left.delete)[:5]}"
        if merged:
            remedy = "publish again when nobody else publishes to the same repository"
            raise HubConflict(f"{self.repository} changed while it was published", found=found, remedy=remedy)
        raise HubError(
            f"{self.repository}: commit {made} is not what was sent",
            found=found,
            remedy="remove .gitignore and .gitattributes rules for these paths from the repository, publish again",
        )

    def _apply(self, plan: Plan) -> str | None:
        self.doing = "sending files"
        additions, sent = upload(
            self.api, self.repository, self.folder, plan.add, self.limits, self.policy, self.progress
        )
        self.bytes_sent += sent
        self.doing = "committing"
        self.committing = True
        operations: list[Operation] = [
            *additions,
            *(CommitOperationCopy(source, path, src_revision=plan.head) for source, path in plan.copy),
            *(CommitOperationDelete(path, is_folder=False) for path in plan.delete),
        ]
        title = f"Publish {version_digest(self.files)}"
        return commit(
            self.api, self.repository, operations, plan.head, title, self.limits.files_per_commit, self.progress
        )

    def _head(self) -> str:
        """The commit that main is at; the repository is created when there is none."""
        info = repository_info(self.api, self.repository)
        if info is None:
            self.api.create_repo(self.repository, repo_type="dataset", private=self.private, exist_ok=True)
            info = self.api.dataset_info(self.repository, revision="main")
        if self.private and not info.private:
            raise HubError(
                f"{self.repository} is public, and NEURALPILE_PRIVATE is set",
                remedy="make the repository private on the Hub, or unset NEURALPILE_PRIVATE; nothing was sent",
            )
        assert info.sha is not None  # always given for a revision
        return info.sha


def repository_info(api: HfApi, repository: str) -> DatasetInfo | None:
    """What main is; None when there is no such repository (or none that the token may see)."""
    try:
        return api.dataset_info(repository, revision="main")
    except RepositoryNotFoundError:
        return None
