"""The guard of the test hub: a response leaves it only when the real Hub could have sent it.

Every JSON document has the fields of the Hub's OpenAPI document (huggingface.co/.well-known/openapi.json) or, where
that is silent, of the types in huggingface.js (packages/hub/src/types/api), no others, and goes through the class or
function of huggingface_hub that reads it. How the hub works does not belong here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, get_type_hints

import httpx2
from huggingface_hub import lfs
from huggingface_hub._commit_api import _validate_preupload_info
from huggingface_hub.community import Discussion, DiscussionWithDetails, deserialize_event
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import CommitInfo, DatasetInfo, GitRefInfo, GitRefs, RepoFile, RepoFolder, RepoUrl
from huggingface_hub.utils import hf_raise_for_status, parse_datetime
from huggingface_hub.utils._xet import parse_xet_connection_info_from_headers
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from neuralpile_dagster_tests.servers.hf_hub_account import check_account
from neuralpile_dagster_tests.servers.http import Request, Response

_ERRORS = {
    "RepoNotFound": RepositoryNotFoundError,
    "RevisionNotFound": RevisionNotFoundError,
    "EntryNotFound": RemoteEntryNotFoundError,
}
_PERSON = "_id avatarUrl fullname isHf isHfAdmin isMod isPro name type"
_COMMENT = "edited editorAvatarUrls editors hidden latest numEdits reactions"
_INFO = "_id id author sha lastModified createdAt private gated disabled downloads likes tags"


class Misfit(AssertionError):
    """A response that the real Hub does not send."""


def check_response(url: str, request: Request, response: Response) -> None:
    """Raise `Misfit` unless ``response`` is one that the Hub at ``url`` could send to ``request``."""
    try:
        if response.status >= 400:
            _check_error(url, request, response)
        elif response.headers.get("Content-Type") == "application/json":
            _check_document(url, request, response)
    except (LookupError, TypeError, ValueError, AttributeError, ValidationError) as error:
        where = f"{request.method} {request.path}"
        raise Misfit(f"{where}: status {response.status}: {type(error).__name__}: {error}") from error


def _check_error(url: str, request: Request, response: Response) -> None:
    if request.path == "/api/validate-yaml":
        _check_validation(_load(response))
        return
    document = _load(response)
    _require_fields(document, "error", "url")
    headers = response.headers
    _require(headers.get("X-Error-Message", document["error"]) == document["error"], "X-Error-Message is another text")
    code = headers.get("X-Error-Code")
    real = httpx2.Request(request.method, url + request.target)
    try:
        hf_raise_for_status(httpx2.Response(response.status, headers=headers, content=response.body, request=real))
    except HfHubHTTPError as error:
        _require(code is None or isinstance(error, _ERRORS[code]), f"{code} becomes {type(error).__name__}")


def endpoint_of(request: Request) -> str:
    """The pattern in `FORMS` of a request; raises `LookupError` when nobody described what the Hub sends there."""
    asked = f"{request.method} {request.path.replace('refs/pr/', 'refs-pr-')}"
    for pattern in FORMS:
        if re.fullmatch(pattern, asked):
            return pattern
    raise LookupError("no form is known for this endpoint")


def _check_document(url: str, request: Request, response: Response) -> None:
    FORMS[endpoint_of(request)](_load(response), url)
    if "/xet-write-token/" in request.path:
        _require(parse_xet_connection_info_from_headers(httpx2.Headers(response.headers)) is not None, "X-Xet headers")


def _load(response: Response) -> Any:
    _require(isinstance(response.body, bytes), "the body is a file")
    return json.loads(response.body)  # type: ignore[arg-type]


def _require(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(what)


def _require_fields(document: Any, required: str, optional: str = "") -> None:
    _require(isinstance(document, dict), f"not an object: {document!r}")
    missing = set(required.split()) - document.keys()
    unknown = document.keys() - set(required.split()) - set(optional.split())
    _require(not missing and not unknown, f"missing fields {sorted(missing)}, unknown fields {sorted(unknown)}")


def _require_oid(oid: str, digits: int = 40) -> None:
    _require(re.fullmatch(f"[0-9a-f]{{{digits}}}", oid) is not None, f"invalid object id {oid!r}")


def _require_types(value: Any) -> None:
    """Raise unless every attribute of an object of huggingface_hub has the type that its class declares."""
    for name, hint in _hints(type(value)).items():
        found = getattr(value, name)
        hint.validate_python(found, strict=True)
        for each in found if isinstance(found, list) else [found]:
            if is_dataclass(each):
                _require_types(each)


@cache
def _hints(kind: type) -> Mapping[str, TypeAdapter[Any]]:
    return {name: _adapter(hint) for name, hint in get_type_hints(kind).items() if not name.startswith("_")}


def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a dataclass brings its own configuration
        return TypeAdapter(hint)


def _check_info(document: Any, url: str) -> None:
    _require_fields(document, f"{_INFO} siblings", "usedStorage cardData description citation trendingScore")
    _require_oid(document["_id"], 24)
    _require_oid(document["sha"])
    for each in document.get("siblings", ()):
        _require_fields(each, "rfilename")
    _require_types(DatasetInfo(**document))


def _check_tree(document: Any, url: str) -> None:
    for each in document:
        _require_fields(each, "type oid size path", "lfs xetHash lastCommit securityFileStatus")
        _require_oid(each["oid"])
        _require(type(each["size"]) is int, "the size is not an integer")
        if each["type"] == "directory":
            _require_types(RepoFolder(**each))
            continue
        _require(each["type"] == "file", f"unknown type {each['type']}")
        if "lfs" in each:
            _require_fields(each["lfs"], "oid size pointerSize")
            _require_oid(each["lfs"]["oid"], 64)
        _require_types(RepoFile(**each))


def _check_refs(document: Any, url: str) -> None:
    _require_fields(document, "branches converts tags", "pullRequests")
    kinds = {}
    for kind, rows in document.items():
        for row in rows:
            _require_fields(row, "name ref targetCommit")
            _require_oid(row["targetCommit"])
        kinds[kind] = [GitRefInfo(row["name"], row["ref"], row["targetCommit"]) for row in rows]
    _require_types(GitRefs(kinds["branches"], kinds["converts"], kinds["tags"], kinds.get("pullRequests")))


def _check_repository(document: Any, url: str) -> None:
    _require_fields(document, "url name id")
    _require(RepoUrl(document["url"], endpoint=url).repo_id == document["id"] == document["name"], "ids differ")


def _check_preupload(document: Any, url: str) -> None:
    _require_fields(document, "commitOid files")
    _require_oid(document["commitOid"])
    for each in _validate_preupload_info(document)["files"]:
        _require_fields(each, "path uploadMode shouldIgnore", "oid")
        _require(type(each["shouldIgnore"]) is bool, "shouldIgnore is not a boolean")


def _check_commit(document: Any, url: str) -> None:
    _require_fields(document, "success commitOid commitUrl hookOutput", "pullRequestUrl")
    _require(document["success"] is True, "a commit without success is an error status")
    _require_oid(document["commitOid"])
    _require_types(CommitInfo(document["commitUrl"], "title", "", document["commitOid"], url))


def _check_batch(document: Any, url: str) -> None:
    _require_fields(document, "objects", "transfer")
    _require(document.get("transfer") in (None, "basic", "multipart", "xet"), "unknown transfer")
    for each in document["objects"]:
        _require_fields(each, "oid size", "actions error authenticated")
        _require_oid(each["oid"], 64)
        lfs._validate_batch_actions(each) if "error" not in each else lfs._validate_batch_error(each)
        _require_fields(each.get("actions", {}), "", "upload verify download")
        for action in each.get("actions", {}).values():
            _require_fields(action, "href", "header expires_in expires_at")
        header = each.get("actions", {}).get("upload", {}).get("header", {})
        _require(all(isinstance(text, str) for text in header.values()), "a header that is not a text")
        if header:  # an upload in parts
            info = lfs.UploadInfo(sha256=bytes.fromhex(each["oid"]), size=each["size"], sample=b"")
            lfs._get_sorted_parts_urls(header, info, int(header["chunk_size"]))


def _check_discussion_row(row: Any, endpoint: str) -> None:
    wanted = "title num author createdAt status repo isPullRequest pinned numComments numReactionUsers topReactions"
    _require_fields(row, wanted, "repoOwner")
    _require_types(Discussion(endpoint=endpoint, **_shared(row)))


def _check_discussions(document: Any, url: str) -> None:
    _require_fields(document, "count start discussions", "numClosedDiscussions")
    for row in document["discussions"]:
        _check_discussion_row(row, url)


def _check_new_discussion(document: Any, url: str) -> None:
    _require_fields(document, "num pullRequest url", "references")
    _require_fields(document.get("references", {"base": ""}), "base", "mergeCommitId")
    _require(type(document["num"]) is int, "the number is not an integer")


def _check_discussion(document: Any, url: str) -> None:
    wanted = "_id collection title num author createdAt status repo isPullRequest pinned locked events changes"
    _require_fields(document, f"{wanted} filesWithConflicts", "diff diffUrl org")
    _require_oid(document["_id"], 24)
    _require_fields(document["changes"], "base", "mergeCommitId")
    details = DiscussionWithDetails(
        events=[_event(event) for event in document["events"]],
        conflicting_files=document["filesWithConflicts"],
        target_branch=document["changes"]["base"],
        merge_commit_oid=document["changes"].get("mergeCommitId"),
        diff=document.get("diff"),
        endpoint=url,
        **_shared(document),
    )
    _require_types(details)


def _shared(row: Any) -> dict[str, Any]:
    _require_fields(row["author"], _PERSON)
    _require_fields(row["repo"], "name type")
    return {
        "title": row["title"],
        "status": row["status"],
        "num": row["num"],
        "repo_id": row["repo"]["name"],
        "repo_type": row["repo"]["type"],
        "author": row["author"]["name"],
        "is_pull_request": row["isPullRequest"],
        "created_at": parse_datetime(row["createdAt"]),
    }


def _event(event: Any) -> Any:
    _require_fields(event, "id type createdAt data", "author")
    _require_fields(event["author"], _PERSON)
    if event["type"] == "comment":
        _require_fields(event["data"], _COMMENT)
        _require_fields(event["data"]["latest"], "raw html updatedAt author")
        _require_fields(event["data"]["latest"]["author"], _PERSON)
    else:
        _require_fields(event["data"], "status", "reason")
    found = deserialize_event(event)
    _require_types(found)
    return found


def _check_status_change(document: Any, url: str) -> None:
    _require_fields(document, "newStatus")
    _event(document["newStatus"])


def _check_account(document: Any, url: str = "") -> None:
    check_account(document)


def _check_validation(document: Any, url: str = "") -> None:
    _require_fields(document, "errors warnings")
    for each in (*document["errors"], *document["warnings"]):
        _require_fields(each, "message")
        _require(isinstance(each["message"], str), "a message that is not a text")


def _check_xet_token(document: Any, url: str) -> None:
    _require_fields(document, "accessToken casUrl exp")


_API = "/api/datasets/[^/]+/[^/]+"
FORMS: Mapping[str, Callable[[Any, str], None]] = {
    f"GET {_API}(/revision/[^/]+)?": _check_info,
    "GET /api/whoami-v2": _check_account,
    f"GET {_API}/tree/[^/]+(/.*)?": _check_tree,
    f"POST {_API}/paths-info/[^/]+": _check_tree,
    f"GET {_API}/refs": _check_refs,
    "POST /api/repos/create": _check_repository,
    "POST /api/validate-yaml": _check_validation,
    f"POST {_API}/preupload/[^/]+": _check_preupload,
    f"POST {_API}/commit/[^/]+": _check_commit,
    f"GET {_API}/xet-write-token/[^/]+": _check_xet_token,
    f"GET {_API}/discussions": _check_discussions,
    f"POST {_API}/discussions": _check_new_discussion,
    f"GET {_API}/discussions/[0-9]+": _check_discussion,
    f"POST {_API}/discussions/[0-9]+/status": _check_status_change,
    "POST /datasets/[^/]+/[^/]+[.]git/info/lfs/objects/batch": _check_batch,
}
for _kind in (DatasetInfo, RepoFile, CommitInfo, GitRefs, DiscussionWithDetails):
    _hints(_kind)  # now, and not while a client with a short timeout waits
