"""A Hugging Face Hub for tests: the real API, for datasets, as far as the real client and `datasets` ask for it.

``with HubServer(folder, xet=...) as hub:`` gives ``hub.url`` (HF_ENDPOINT), ``hub.faults`` (see `faults`),
``hub.store`` (what was published) and ``hub.received`` (bytes by kind: lfs, commit, xorb, shard).
"""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from neuralpile_dagster_tests.servers.hf_hub_account import whoami
from neuralpile_dagster_tests.servers.hf_hub_forms import (
    discussions,
    info,
    paths_info,
    preupload,
    refs,
    status_change,
    tag,
    tree_rows,
    validate_yaml,
)
from neuralpile_dagster_tests.servers.hf_hub_lfs import LfsStore
from neuralpile_dagster_tests.servers.hf_hub_store import Commit, Entry, HubStore, Refused, Repository
from neuralpile_dagster_tests.servers.hf_hub_xet import XetStore
from neuralpile_dagster_tests.servers.http import Request, Response, Server, file_response, json_response


class HubServer(Server):
    """The test hub; ``token`` is the one that may write (and read private repositories)."""

    def __init__(
        self,
        root: Path,
        *,
        xet: bool = False,
        token: str = "hf_testtoken",
        part_bytes: int = 1 << 30,
        page: int = 1000,
        **network: float,
    ) -> None:
        super().__init__(self._answer, **network)
        self.store = HubStore(root)
        self.token = token
        self.account = whoami(orgs={"lab": "write"})
        self.page = page
        self.xet = xet
        self.received: Counter[str] = Counter()
        self._lfs = LfsStore(self.store, part_bytes, self._count)
        self._xet = XetStore(self.store, self._count) if xet else None
        self._counting = threading.Lock()

    def _count(self, kind: str, size: int) -> None:
        with self._counting:
            self.received[kind] += size

    def __enter__(self) -> HubServer:
        super().__enter__()
        return self

    def tree(self, name: str, revision: str = "main") -> dict[str, Entry]:
        """What a reader of the repository sees."""
        return self.store.repository(name).commit_at(revision).tree

    def content(self, name: str, path: str, revision: str = "main") -> bytes:
        """The content of one published file."""
        return self.store.content(self.tree(name, revision)[path]).read_bytes()

    def commits(self, name: str) -> list[Commit]:
        """The commits of main that somebody made, newest first."""
        if name not in self.store.repositories:
            return []
        return [commit for commit in self.store.repository(name).history() if commit.parent is not None]

    def _answer(self, request: Request) -> Response:
        try:
            return self._route(request)
        except Refused as refusal:
            headers = {"X-Error-Message": str(refusal)}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            return json_response({"error": str(refusal)}, refusal.status, headers)

    def _route(self, request: Request) -> Response:
        parts = [unquote(part) for part in urlsplit(request.target).path.strip("/").split("/")]
        match request.method, parts:
            case _, ["v1", *_] if self._xet is not None:
                return self._xet.answer(request)
            case _, ["lfs", *rest]:
                return self._lfs.answer(request, rest)
            case "GET", ["api", "whoami-v2"]:
                self._require_token(request)
                return json_response(self.account)
            case "POST", ["api", "validate-yaml"]:
                return validate_yaml(json.loads(request.body)["content"])
            case "POST", ["api", "repos", "create"]:
                return self._create(request)
            case "GET", ["api", "datasets"]:
                return self._list(request)
            case _, ["api", "datasets", owner, name, *rest]:
                repository = self._open(request, f"{owner}/{name}")
                return self._api(request, repository, rest)
            case "POST", ["datasets", owner, name, "info", "lfs", "objects", "batch"]:
                self._require_token(request)
                repository = self.store.repository(f"{owner}/{name.removesuffix('.git')}")
                return self._lfs.batch(request, self.url, repository.name)
            case "POST", ["datasets", _, _, "info", "lfs", "objects", "verify"]:
                self._require_token(request)
                return self._lfs.answer(request, ["verify"])
            case "POST", ["api", "complete_multipart"]:
                return self._lfs.answer(request, ["complete"])
            case "GET" | "HEAD", ["datasets", owner, name, "resolve", revision, *path]:
                repository = self._open(request, f"{owner}/{name}")
                return self._resolve(request, repository.commit_at(revision), "/".join(path))
            case _:
                return json_response({"error": "no such route"}, 404)

    def _require_token(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "Invalid credentials in Authorization header")

    def _open(self, request: Request, name: str) -> Repository:
        repository = self.store.repository(name)
        if request.method not in ("GET", "HEAD") and "paths-info" not in request.target:
            self._require_token(request)
        elif repository.private and request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "Repository not found", "RepoNotFound")
        return repository

    def _create(self, request: Request) -> Response:
        self._require_token(request)
        wanted = json.loads(request.body)
        name = f"{wanted['organization']}/{wanted['name']}"
        url = f"{self.url}/datasets/{name}"
        try:
            self.store.create(name, wanted.get("visibility") == "private" or bool(wanted.get("private")))
        except Refused as refusal:
            return json_response({"error": str(refusal), "url": url}, refusal.status)
        return json_response({"url": url, "name": name, "id": name})

    def _list(self, request: Request) -> Response:
        author = request.query.get("author", "")
        found = [repo for repo in self.store.repositories.values() if repo.name.startswith(f"{author}/")]
        allowed = request.headers.get("authorization") == f"Bearer {self.token}"
        return json_response([info(repo, repo.commit_at("main")) for repo in found if allowed or not repo.private])

    def _api(self, request: Request, repository: Repository, rest: list[str]) -> Response:
        revision = rest[1] if len(rest) > 1 else "main"
        match request.method, rest:
            case "GET", [] | ["revision", _]:
                return json_response(info(repository, repository.commit_at(revision)))
            case "GET", ["refs"]:
                return json_response(refs(repository))
            case "GET", ["tree", _, *path]:
                return self._tree(request, repository.commit_at(revision), "/".join(path))
            case "POST", ["paths-info", _]:
                return paths_info(request, repository.commit_at(revision))
            case "POST", ["preupload", _]:
                commit = repository.commit_at(revision)
                ignored = (
                    self.store.content(commit.tree[".gitignore"]).read_text().split()
                    if ".gitignore" in commit.tree
                    else []
                )
                return preupload(json.loads(request.body), commit, ignored)
            case "GET", ["xet-write-token", _] if self._xet is not None:
                self._require_token(request)
                token = {"accessToken": "xet-token", "exp": 4102444800, "casUrl": self.url}
                return json_response(token, headers={"X-Xet-Cas-Url": self.url})
            case "POST", ["commit", _]:
                return self._commit(request, repository, revision)
            case "POST", ["tag", _]:
                return tag(json.loads(request.body)["tag"], repository, revision)
            case "GET", ["discussions"]:
                return discussions(request, repository)
            case "POST", ["discussions", number, action]:
                return self._discussion(request, repository, int(number), action)
            case _:
                return json_response({"error": "no such route"}, 404)

    def _tree(self, request: Request, commit: Commit, folder: str) -> Response:
        rows = tree_rows(commit.tree, folder, request.query.get("recursive", "false").lower() in ("true", "1"))
        if folder and not rows:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        start = int(request.query.get("cursor", 0))
        headers = {}
        if start + self.page < len(rows):
            path = urlsplit(request.target).path
            query = f"recursive={request.query.get('recursive', 'false')}&cursor={start + self.page}"
            headers["Link"] = f'<{self.url}{path}?{query}>; rel="next"'
        return json_response(rows[start : start + self.page], headers=headers)

    def _commit(self, request: Request, repository: Repository, revision: str) -> Response:
        self._count("commit", len(request.body))
        lines = [json.loads(line) for line in request.body.splitlines() if line]
        header = lines[0]["value"]
        changes: dict[str, Entry | None] = {}
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    changes[value["path"]] = self.store.add_blob(base64.b64decode(value["content"]))
                case "lfsFile":
                    changes[value["path"]] = self.store.lfs_entry(value["oid"])
                case "deletedFile":
                    changes[value["path"]] = None
                case other:
                    raise Refused(400, f"unknown operation {other}")
        wants_pull = request.query.get("create_pr") == "1"
        commit, pull = self.store.commit(
            repository, revision, header["summary"], header.get("parentCommit"), changes, wants_pull
        )
        url = f"{self.url}/datasets/{repository.name}"
        answer: dict[str, Any] = {"success": True, "commitOid": commit.oid, "commitUrl": f"{url}/commit/{commit.oid}"}
        if pull is not None:
            answer["pullRequestUrl"] = f"{url}/discussions/{pull.number}"
        return json_response(answer)

    def _discussion(self, request: Request, repository: Repository, number: int, action: str) -> Response:
        if action == "merge":
            self.store.merge(repository, number)
            return json_response({"ok": True})
        repository.pulls[number].status = json.loads(request.body)["status"]
        return json_response(status_change(repository.pulls[number].status))

    def _resolve(self, request: Request, commit: Commit, path: str) -> Response:
        entry = commit.tree.get(path)
        if entry is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": commit.oid, "X-Linked-Etag": f'"{entry.etag}"', "X-Linked-Size": str(entry.size)}
        return file_response(request, self.store.content(entry), entry.etag, headers)
