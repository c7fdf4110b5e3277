"""What the test hub answers: its documents, as JSON."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qs

import yaml

from neuralpile_dagster_tests.servers.hf_hub_store import Commit, Entry, PullRequest, Refused, Repository
from neuralpile_dagster_tests.servers.http import Request, Response, json_response

_TIME = "2026-01-01T00:00:00.000Z"


def validate_yaml(card: str) -> Response:
    try:
        yaml.safe_load(card.split("---")[1] if card.startswith("---") else "")
    except yaml.YAMLError as error:
        return json_response({"errors": [{"message": str(error)}], "warnings": []}, 400)
    return json_response({"errors": [], "warnings": []})


def info(repository: Repository, commit: Commit) -> dict[str, Any]:
    return {
        "_id": repository.name,
        "id": repository.name,
        "author": repository.name.split("/")[0],
        "sha": commit.oid,
        "private": repository.private,
        "gated": False,
        "disabled": False,
        "lastModified": _TIME,
        "createdAt": _TIME,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [{"rfilename": path} for path in sorted(commit.tree)],
    }


def refs(repository: Repository) -> dict[str, Any]:
    branches = [name for name in repository.branches if not name.startswith("refs/")]
    return {
        "branches": [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": repository.branches[name]} for name in branches
        ],
        "converts": [],
        "tags": [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in repository.tags.items()],
        "pullRequests": [],
    }


def _row(path: str, entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "path": path, "size": entry.size, "oid": entry.oid}
    if entry.lfs:
        row["lfs"] = {"oid": entry.lfs, "size": entry.size, "pointerSize": 134}
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
    return [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)] + rows


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
    return json_response({"files": files})


def tag(tag: str, repository: Repository, revision: str) -> Response:
    if tag in repository.tags:
        raise Refused(409, "Tag reference exists already")
    repository.tags[tag] = repository.commit_at(revision).oid
    return json_response({"ok": True})


def discussions(request: Request, repository: Repository) -> Response:
    def row(pull: PullRequest) -> dict[str, Any]:
        return {
            "title": pull.title,
            "num": pull.number,
            "author": {"name": "tester"},
            "createdAt": _TIME,
            "status": pull.status,
            "repo": {"name": repository.name, "type": "dataset"},
            "isPullRequest": True,
        }

    wanted = request.query.get("status", "all")
    rows = [row(pull) for pull in repository.pulls.values() if wanted in ("all", pull.status)]
    return json_response({"discussions": rows, "count": len(rows), "start": 0})


def status_change(status: str) -> dict[str, Any]:
    event = {"id": "1", "type": "status-change", "createdAt": _TIME, "author": {"name": "tester"}}
    return {"newStatus": {**event, "data": {"status": status}}}
