"""A Hugging Face Hub for tests: the real API, for datasets, as far as the real client and `datasets` ask for it.

``with HubServer(folder, xet=...) as hub:`` gives ``hub.url`` (HF_ENDPOINT), ``hub.faults`` (see `faults`),
``hub.store`` (what was published) and ``hub.received`` (bytes by kind: lfs, commit, xorb, shard). Contents of large
files come from and go to a second server with another host name, ``hub.storage``, which shares faults and log.

No response leaves it unless `hf_hub_checks` takes it: else the client gets status 500, and the ``with`` ends in error.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from neuralpile_dagster_tests.servers.hf_hub_account import whoami
from neuralpile_dagster_tests.servers.hf_hub_card import card_errors
from neuralpile_dagster_tests.servers.hf_hub_checks import Misfit, check_response
from neuralpile_dagster_tests.servers.hf_hub_forms import (
    info,
    paths_info,
    preupload,
    refs,
    tag,
    tree_rows,
    validate_yaml,
)
from neuralpile_dagster_tests.servers.hf_hub_lfs import LfsStore
from neuralpile_dagster_tests.servers.hf_hub_pulls import details, discussions, new_pull, status_change
from neuralpile_dagster_tests.servers.hf_hub_store import Commit, Entry, HubStore, Refused, Repository
from neuralpile_dagster_tests.servers.hf_hub_xet import XET_TOKEN, XetStore
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
        self.misfits: list[Misfit] = []
        self.storage = Server(self._answer_storage, **network)
        self.storage.faults, self.storage.log = self.faults, self.log
        self.storage_url = self.storage.url.replace("127.0.0.1", "localhost")
        self._lfs = LfsStore(self.store, part_bytes, self._count, self.storage_url, self.url)
        self._xet = XetStore(self.store, self._count) if xet else None
        self._counting = threading.Lock()

    def _count(self, kind: str, size: int) -> None:
        with self._counting:
            self.received[kind] += size

    def __enter__(self) -> HubServer:
        super().__enter__()
        self.storage.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self.storage.__exit__(*raised)
        super().__exit__(*raised)
        if self.misfits:
            raise self.misfits[0]

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
            response = self._route(request)
        except Refused as refusal:
            headers = {"X-Error-Message": str(refusal)}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            response = json_response({"error": str(refusal)}, refusal.status, headers)
        try:
            check_response(self.url, request, response)
        except Misfit as misfit:
            self.misfits.append(misfit)
            return json_response({"error": f"this server was about to lie: {misfit}"}, 500)
        return response

    def _answer_storage(self, request: Request) -> Response:
        if self._xet is None or not request.path.startswith(("/v1/", "/v2/")):
            return self._lfs.answer_storage(request)
        if request.headers.get("authorization") != f"Bearer {XET_TOKEN}":
            return Response(401)
        try:
            return self._xet.answer(request)
        except Refused as refusal:
            return Response(refusal.status, {}, str(refusal).encode())

    def _route(self, request: Request) -> Response:
        parts = [unquote(part) for part in urlsplit(request.target).path.strip("/").split("/")]
        match request.method, parts:
            case "GET", ["api", "whoami-v2"]:
                self._require_token(request)
                return json_response(self.account)
            case "POST", ["api", "validate-yaml"]:
                return validate_yaml(json.loads(request.body)["content"])
            case "POST", ["api", "repos", "create"]:
                return self._create(request)
            case _, ["api", "datasets", owner, name, *rest]:
                repository = self._open(request, f"{owner}/{name}")
                return self._api(request, repository, rest)
            case "POST", ["datasets", owner, name, "info", "lfs", "objects", "batch"]:
                self._require_token(request)
                repository = self.store.repository(f"{owner}/{name.removesuffix('.git')}")
                return self._lfs.batch(request, repository.name)
            case "POST", ["datasets", _, _, "info", "lfs", "objects", "verify"]:
                self._require_token(request)
                return self._lfs.verify(request)
            case "POST", ["api", "complete_multipart"]:
                return self._lfs.complete(request)
            case "GET" | "HEAD", ["datasets", owner, name, "resolve", revision, *path]:
                repository = self._open(request, f"{owner}/{name}")
                return self._resolve(repository, repository.commit_at(revision), "/".join(path))
            case "GET" | "HEAD", ["api", "resolve-cache", "datasets", owner, name, commit, *path]:
                repository = self._open(request, f"{owner}/{name}")
                return self._resolve_cache(request, repository.commit_at(commit), "/".join(path))
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

    def _api(self, request: Request, repository: Repository, rest: list[str]) -> Response:
        revision = rest[1] if len(rest) > 1 else "main"
        match request.method, rest:
            case "GET", [] | ["revision", _]:
                return json_response(info(repository, repository.commit_at(revision)))
            case "GET", ["refs"]:
                return json_response(refs(repository, pulls=request.query.get("include_prs") == "1"))
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
                token = {"accessToken": XET_TOKEN, "exp": 4102444800, "casUrl": self.storage_url}
                headers = ("X-Xet-Access-Token", "X-Xet-Token-Expiration", "X-Xet-Cas-Url")
                return json_response(token, headers=dict(zip(headers, map(str, token.values()), strict=True)))
            case "POST", ["commit", _]:
                return self._commit(request, repository, revision)
            case "POST", ["tag", _]:
                return tag(json.loads(request.body)["tag"], repository, revision)
            case "GET", ["discussions"]:
                return discussions(request, repository)
            case "POST", ["discussions"]:
                pull = self.store.open_pull(repository, json.loads(request.body)["title"])
                return new_pull(repository, pull, self.url)
            case "GET", ["discussions", number]:
                return details(repository, repository.pulls[int(number)])
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
        if errors := self._card_errors(changes.get("README.md")):
            told = "\n".join(f" - Error: {error}" for error in errors)
            raise Refused(400, f"Sorry, your push was rejected during YAML metadata verification: {told}")
        if request.query.get("create_pr"):
            raise Refused(400, "this server opens pull requests by POST /discussions only")
        commit = self.store.commit(repository, revision, header["summary"], header.get("parentCommit"), changes)
        url = f"{self.url}/datasets/{repository.name}/commit/{commit.oid}"
        return json_response({"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""})

    def _card_errors(self, card: Entry | None) -> list[str]:
        return [] if card is None else card_errors(self.store.content(card).read_text())

    def _discussion(self, request: Request, repository: Repository, number: int, action: str) -> Response:
        if action == "merge":
            self.store.merge(repository, number)
            return Response(200)
        return status_change(self.store.set_status(repository, number, json.loads(request.body)["status"]))

    def _resolve(self, repository: Repository, commit: Commit, path: str) -> Response:
        """Send the reader on, as the Hub does: to its storage for a large file, to its own cache for a small one."""
        entry = _entry(commit, path)
        headers = {"X-Repo-Commit": commit.oid, "X-Linked-Size": str(entry.size), "X-Linked-Etag": f'"{entry.etag}"'}
        if entry.lfs:
            location = self._lfs.download_url(entry, path)
            return Response(302, {**headers, "Location": location}, f"Found. Redirecting to {location}".encode())
        # as seen on the Hub: https://github.com/huggingface/swift-transformers/pull/209
        asked = quote(f"/datasets/{repository.name}/resolve/{commit.oid}/{path}", safe="")
        cached = f"/api/resolve-cache/datasets/{repository.name}/{commit.oid}/{quote(path, safe='')}"
        location = f"{cached}?{asked}=&etag={quote(headers['X-Linked-Etag'])}"
        return Response(307, {**headers, "Location": location}, f"Temporary Redirect. {location}".encode())

    def _resolve_cache(self, request: Request, commit: Commit, path: str) -> Response:
        entry = _entry(commit, path)
        headers = {"X-Repo-Commit": commit.oid, "Content-Type": "text/plain; charset=utf-8"}
        return file_response(request, self.store.content(entry), entry.etag, headers)


def _entry(commit: Commit, path: str) -> Entry:
    if path not in commit.tree:
        raise Refused(404, "Entry not found", "EntryNotFound")
    return commit.tree[path]
