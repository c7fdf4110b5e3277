"""One publication: plan, upload, one commit; after a transient error, plan again.

Contents are sent before a commit names them and are found there by the next
attempt, so files already uploaded are skipped; the commit is pinned to the head that the
plan was made for, so it lands whole on what was seen, or not at all. A commit
whose response was lost is looked up, never sent twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import DatasetInfo, RepoFile

from neuralpile_dagster.errors import HubConflict, HubError, HubUnavailable
from neuralpile_dagster.hub import RepositoryFile, version_digest
from neuralpile_dagster.hub.huggingface.client import FAILURES, Problem, Secrets, asked_wait_s, explain
from neuralpile_dagster.hub.huggingface.read import remote_files
from neuralpile_dagster.hub.huggingface.upload import Limits, upload
from neuralpile_dagster.net.retry import AttemptFailed, RetryPolicy, retry_call
from neuralpile_dagster.progress import Progress

Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete


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
    doing: str = "reading the repository"
    committing: bool = False
    bytes_sent: int = 0

    def run(self) -> str:
        """The version's tag, once the repository holds the files.

        Raises `HubUnavailable` or `HubConflict` when ``limits.plans`` plans
        failed, `HubError` at once when trying again cannot help.
        """
        problem: Problem | None = None

        def attempt() -> str:
            nonlocal problem
            try:
                return self._attempt()
            except FAILURES as error:
                problem = explain(error, self.repository, self.doing, self.secrets)
            if problem.transient:
                raise AttemptFailed(str(problem.error), asked_wait_s(problem.headers))
            raise problem.error from problem.cause

        with suppress(AttemptFailed):
            return retry_call(
                attempt, self.repository, replace(self.policy, attempts=self.limits.plans), warn=self._warn
            )
        assert problem is not None
        raise problem.error from problem.cause

    def _warn(self, what: str, reason: str, seconds: float, _waited_s: float, following: str) -> None:
        self.progress(f"{what}: {reason} Trying again in {seconds:.0f} s ({following}).")

    def _attempt(self) -> str:
        """Make one plan, apply it, look at what came of it, and give the version's tag."""
        self.doing = "reading the repository"
        try:
            head = self._head()
        except RevisionNotFoundError:  # somebody else creates it at this moment; `run` looks again
            raise HubUnavailable(f"{self.repository} has no branch main yet", remedy="try again") from None
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
        self.doing = "verifying the new commit"
        left = self._plan(made)
        if left.nothing:
            return
        found = f"different or missing: {[file.path for file in left.add][:5]}, not deleted: {list(left.delete)[:5]}"
        if merged:
            remedy = "publish again when nobody else publishes to the same repository"
            raise HubConflict(f"{self.repository} changed while it was published", found=found, remedy=remedy)
        raise HubError(
            f"{self.repository}: commit {made} differs from the files sent",
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
        return self._commit(operations, plan.head)

    def _commit(self, operations: Sequence[Operation], head: str) -> str | None:
        """Apply all operations on top of commit ``head``; readers of main see none of them or all.

        Gives the new commit. More operations than ``limits.files_per_commit`` become
        several commits of a pull request, merged once: then None, because what the
        merge made must be looked at (somebody's commit may have come between).
        Raises `HubConflict`, or what huggingface_hub raises (412 when main is not at ``head`` any more).
        """
        title, size = f"Publish {version_digest(self.files)}", self.limits.files_per_commit
        create = partial(self.api.create_commit, self.repository, commit_message=title, repo_type="dataset")
        committing = f"{self.repository}: committing {len(operations):,} changed files"
        if len(operations) <= size:
            self.progress(committing)
            return create(operations, parent_commit=head).oid
        self._close_leftovers(title)
        parts = [operations[start : start + size] for start in range(0, len(operations), size)]
        self.progress(f"{committing} in {len(parts):,} parts, then merging them")
        # not create_commit(create_pr=True): this one is a draft, which nobody can merge while it is incomplete
        number = self.api.create_pull_request(self.repository, title, repo_type="dataset").num
        try:
            parent = head
            for part in parts:
                parent = create(part, revision=f"refs/pr/{number}", parent_commit=parent).oid
            self.api.change_discussion_status(self.repository, number, "open", repo_type="dataset")
            # a merge cannot be pinned to its parent: what slips through here is found by the next plan
            current = self.api.dataset_info(self.repository, revision="main").sha
            if current != head:
                found = f"main is at {current}, not {head}"
                raise HubConflict(f"{self.repository} changed while it was published", found=found)
            self.api.merge_pull_request(self.repository, number, repo_type="dataset")
        except FAILURES:
            self._close(number)
            raise
        return None

    def _close_leftovers(self, title: str) -> None:
        """Close pull requests of the same title, drafts and open: an earlier attempt to publish this version died."""
        pulls = self.api.get_repo_discussions(self.repository, repo_type="dataset", discussion_type="pull_request")
        for found in list(pulls):
            if found.title == title and found.status in ("draft", "open"):
                self._close(found.num)

    def _close(self, number: int) -> None:
        try:
            self.api.change_discussion_status(self.repository, number, "closed", repo_type="dataset")
        except FAILURES as error:
            name = type(error).__name__
            self.progress(f"{self.repository}: pull request {number} could not be closed ({name}); it is harmless")

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


@dataclass(frozen=True)
class Plan:
    """What to do on top of commit ``head``.

    ``add`` are files to send, ``delete`` paths, ``copy`` pairs of a path that
    ``head`` has and a new path with the same content (a shard under a new number).
    """

    head: str
    add: tuple[RepositoryFile, ...]
    copy: tuple[tuple[str, str], ...]
    delete: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        """Whether the repository already holds exactly the wanted files."""
        return not (self.add or self.copy or self.delete)


def make_plan(folder: Path, files: Iterable[RepositoryFile], head: str, remote: dict[str, RepoFile]) -> Plan:
    """Compare local ``files`` (below ``folder``) with the remote ones by digest, sha256 or git's own."""
    wanted = {file.path: file for file in files}
    there = {row.lfs.sha256: path for path, row in remote.items() if row.lfs is not None}
    differing = [file for path, file in wanted.items() if not _same(folder, file, remote.get(path))]
    return Plan(
        head,
        add=tuple(file for file in differing if file.sha256 not in there),
        copy=tuple((there[file.sha256], file.path) for file in differing if file.sha256 in there),
        delete=tuple(sorted(remote.keys() - wanted.keys())),
    )


def _same(folder: Path, local: RepositoryFile, remote: RepoFile | None) -> bool:
    if remote is None or remote.size != local.size:
        return False
    if remote.lfs is not None:
        return remote.lfs.sha256 == local.sha256
    content = (folder / local.path).read_bytes()
    # git's id of a content, which the Hub lists for files that are not in large storage
    return remote.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def version_tag(files: Iterable[RepositoryFile], tags: Iterable[str]) -> str:
    """The name ``v<date>-<digest>`` of a version: the tag that its digest has already, or today's."""
    digest = version_digest(files)
    for tag in sorted(tags):
        if tag.startswith("v") and tag.endswith(f"-{digest}"):
            return tag
    return f"v{datetime.now(UTC):%Y%m%d}-{digest}"
