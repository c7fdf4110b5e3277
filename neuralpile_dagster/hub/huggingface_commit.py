"""Make planned changes visible at once: one commit, or one merge where a commit would be too large."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi

from neuralpile_dagster.errors import HubConflict
from neuralpile_dagster.hub.huggingface_errors import FAILURES
from neuralpile_dagster.progress import Progress

Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete


def commit(
    api: HfApi,
    repository: str,
    operations: Sequence[Operation],
    head: str,
    title: str,
    files_per_commit: int,
    progress: Progress,
) -> str | None:
    """Apply all operations on top of commit ``head``; readers of main see none of them or all.

    Gives the new commit. More operations than ``files_per_commit`` become
    several commits of a pull request, merged once: then None, because what the
    merge made must be looked at (somebody's commit may have come between).
    Raises `HubConflict`, or what huggingface_hub raises (412 when main is not at ``head`` any more).
    """
    if len(operations) <= files_per_commit:
        progress(f"{repository}: committing {len(operations):,} changed files")
        made = api.create_commit(repository, operations, commit_message=title, repo_type="dataset", parent_commit=head)
        return made.oid
    _close_leftovers(api, repository, title, progress)
    parts = list(_parts(operations, files_per_commit))
    progress(f"{repository}: committing {len(operations):,} changed files in {len(parts):,} parts, then merging them")
    # not create_commit(create_pr=True): this one is a draft, which nobody can merge while it is incomplete
    pull = api.create_pull_request(repository, title, repo_type="dataset")
    try:
        _fill_and_merge(api, repository, parts, pull.num, title, head)
    except FAILURES:
        _close(api, repository, pull.num, progress)
        raise
    return None


def _fill_and_merge(
    api: HfApi, repository: str, parts: Sequence[Sequence[Operation]], number: int, title: str, head: str
) -> None:
    branch, parent = f"refs/pr/{number}", head
    for part in parts:
        made = api.create_commit(
            repository, part, commit_message=title, repo_type="dataset", revision=branch, parent_commit=parent
        )
        parent = made.oid
    api.change_discussion_status(repository, number, "open", repo_type="dataset")
    current = api.dataset_info(repository, revision="main").sha
    if current != head:  # a merge cannot be pinned to its parent: what slips through here is found by the next plan
        raise HubConflict(f"{repository} changed while it was published", found=f"main is at {current}, not {head}")
    api.merge_pull_request(repository, number, repo_type="dataset")


def _parts(operations: Sequence[Operation], size: int) -> Iterator[Sequence[Operation]]:
    for start in range(0, len(operations), size):
        yield operations[start : start + size]


def _close_leftovers(api: HfApi, repository: str, title: str, progress: Progress) -> None:
    """Close pull requests of the same title, drafts and open: an earlier attempt to publish this version died."""
    leftovers = api.get_repo_discussions(repository, repo_type="dataset", discussion_type="pull_request")
    for found in list(leftovers):
        if found.title == title and found.status in ("draft", "open"):
            _close(api, repository, found.num, progress)


def _close(api: HfApi, repository: str, number: int, progress: Progress) -> None:
    try:
        api.change_discussion_status(repository, number, "closed", repo_type="dataset")
    except FAILURES as error:
        progress(f"{repository}: pull request {number} could not be closed ({type(error).__name__}); it is harmless")
