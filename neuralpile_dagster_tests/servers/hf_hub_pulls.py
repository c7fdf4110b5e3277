"""What the test hub says about pull requests; the fields are those of the Hub's OpenAPI document."""

from __future__ import annotations

import hashlib
from typing import Any

from neuralpile_dagster_tests.servers.hf_hub_store import PullRequest, Repository
from neuralpile_dagster_tests.servers.http import Request, Response, json_response

TIME = "2026-01-01T00:00:00.000Z"
_PAGE = 10


def object_id(text: str) -> str:
    """A database id as the Hub shows it: 24 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]


_AUTHOR = {
    "_id": object_id("tester"),
    "avatarUrl": "/avatars/tester.svg",
    "fullname": "tester",
    "name": "tester",
    "type": "user",
    "isPro": False,
    "isHf": False,
    "isHfAdmin": False,
    "isMod": False,
}


def discussions(request: Request, repository: Repository) -> Response:
    """List pull requests, a page at a time.

    The filter ``open`` gives drafts too: test_get_repo_discussion_by_status of huggingface_hub expects a pull request
    that nobody has published.
    """
    kinds = {"open": ("draft", "open"), "closed": ("closed", "merged")}
    wanted = kinds.get(request.query.get("status", "all"), ("draft", "open", "closed", "merged"))
    rows = [_row(repository, pull) for pull in repository.pulls.values() if pull.status in wanted]
    start = int(request.query.get("p", 0)) * _PAGE
    return json_response({"discussions": rows[start : start + _PAGE], "count": len(rows), "start": start})


def new_pull(repository: Repository, pull: PullRequest, url: str) -> Response:
    """The response to the creation of a pull request."""
    address = f"{url}/datasets/{repository.name}/discussions/{pull.number}"
    references = {"base": "refs/heads/main"}
    return json_response({"num": pull.number, "pullRequest": True, "url": address, "references": references})


def details(repository: Repository, pull: PullRequest) -> Response:
    """Everything about one pull request."""
    merged = {"mergeCommitId": pull.merged_as} if pull.merged_as else {}
    said = {"raw": pull.title, "html": f"<p>{pull.title}</p>", "updatedAt": TIME, "author": _AUTHOR}
    comment = {
        "edited": False,
        "hidden": False,
        "latest": said,
        "numEdits": 0,
        "editors": ["tester"],
        "editorAvatarUrls": [_AUTHOR["avatarUrl"]],
        "reactions": [],
    }
    document = {
        "_id": object_id(f"{repository.name} {pull.number}"),
        "collection": "discussions",
        "locked": False,
        "events": [_event(pull, "comment", comment)],
        "changes": {"base": "refs/heads/main", **merged},
        "filesWithConflicts": [],
        "diff": "",
        **_shared(repository, pull),
    }
    return json_response(document)


def status_change(pull: PullRequest) -> Response:
    """The response to a change of a pull request's status."""
    return json_response({"newStatus": _event(pull, "status-change", {"status": pull.status})})


def _shared(repository: Repository, pull: PullRequest) -> dict[str, Any]:
    return {
        "title": pull.title,
        "num": pull.number,
        "author": _AUTHOR,
        "createdAt": TIME,
        "status": pull.status,
        "repo": {"name": repository.name, "type": "dataset"},
        "isPullRequest": True,
        "pinned": False,
    }


def _row(repository: Repository, pull: PullRequest) -> dict[str, Any]:
    return {**_shared(repository, pull), "numComments": 0, "numReactionUsers": 0, "topReactions": []}


def _event(pull: PullRequest, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    number = object_id(f"{pull.number} {kind} {pull.status}")
    return {"id": number, "type": kind, "createdAt": TIME, "author": _AUTHOR, "data": data}
