"""What the test hub answers: its documents, as JSON, in the forms that `hf_hub_checks` holds it to."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qs

from neuralpile_dagster_tests.servers.hf_hub_card import card_errors
from neuralpile_dagster_tests.servers.hf_hub_pulls import TIME, object_id
from neuralpile_dagster_tests.servers.hf_hub_store import Commit, Entry, Refused, Repository, git_blob_oid
from neuralpile_dagster_tests.servers.http import Request, Response, json_response


def validate_yaml(card: str) -> Response:
    """The result of validating a card; refusals have status 400."""
    errors = [{"message": text} for text in card_errors(card)]
    return json_response({"errors": errors, "warnings": []}, 400 if errors else 200)


def listed(repository: Repository, commit: Commit) -> dict[str, Any]:
    """A repository in a list of repositories."""
    return {
        "_id": object_id(repository.name),
        "id": repository.name,
        "author": repository.name.split("/")[0],
        "sha": commit.oid,
        "private": repository.private,
        "gated": False,
        "disabled": False,
        "lastModified": TIME,
        "createdAt": TIME,
        "downloads": 0,
        "likes": 0,
        "tags": [],
    }


def info(repository: Repository, commit: Commit) -> dict[str, Any]:
    """Everything about a repository at one commit."""
    siblings = [{"rfilename": path} for path in sorted(commit.tree)]
    return {**listed(repository, commit), "siblings": siblings, "usedStorage": 0}


def refs(repository: Repository, pulls: bool) -> dict[str, Any]:
    """All refs; those of pull requests only for who asks for them."""
    kinds: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    for name, commit in repository.branches.items():
        kind, ref = ("pullRequests", name) if name.startswith("refs/") else ("branches", f"refs/heads/{name}")
        kinds[kind].append({"name": name, "ref": ref, "targetCommit": commit})
    for name, commit in repository.tags.items():
        kinds["tags"].append({"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit})
    return kinds if pulls else {kind: rows for kind, rows in kinds.items() if kind != "pullRequests"}


def _row(path: str, entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "path": path, "size": entry.size, "oid": entry.oid}
    if entry.lfs:
        row["lfs"] = {"oid": entry.lfs, "size": entry.size, "pointerSize": entry.pointer_size}
    return row


def tree_rows(tree: dict[str, Entry], folder: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    rows, folders = [], set()
    for path, entry in sorted(tree.items()):
        if not path.startswith(prefix):
            continue
        steps = path.removeprefix(prefix).split("/")
        for depth in range(1, len(steps) if recursive else min(len(steps), 2)):
            folders.add(prefix + "/".join(steps[:depth]))
        if recursive or len(steps) == 1:
            rows.append(_row(path, entry))
    return [
        {"type": "directory", "path": path, "oid": git_blob_oid(path.encode()), "size": 0} for path in sorted(folders)
    ] + rows


def paths_info(request: Request, commit: Commit) -> Response:
    paths = parse_qs(request.body.decode()).get("paths", [])
    if request.body.startswith(b"{"):
        paths = json.loads(request.body)["paths"]
    rows = {row["path"]: row for row in tree_rows(commit.tree, "", True)}
    return json_response([rows[path] for path in paths if path in rows])


def preupload(wanted: dict[str, Any], commit: Commit, ignored_paths: Collection[str]) -> Response:
    files = []
    for file in wanted["files"]:
        large = file["path"].endswith(".parquet") or file["size"] > 10_000_000
        entry = commit.tree.get(file["path"])
        ignored = file["path"] in ignored_paths
        row = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": ignored}
        files.append(row | ({"oid": entry.etag} if entry else {}))
    return json_response({"commitOid": commit.oid, "files": files})


def tag(tag: str, repository: Repository, revision: str) -> Response:
    if tag in repository.tags:
        raise Refused(409, "Tag reference exists already")
    repository.tags[tag] = repository.commit_at(revision).oid
    return Response(200)
