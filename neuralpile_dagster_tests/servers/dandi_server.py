"""A DANDI archive for tests: the part of the API that the real `dandi` client uses here, and its blob store.

`python -m neuralpile_dagster_tests.servers.dandi_server FOLDER` serves the files
of ``FOLDER/<dandiset id>/<path>`` as published dandisets until its standard
input ends (``--latency``, ``--rate``: see `http.Server`).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuralpile_dagster_tests.servers.dandi_store import CREATED, Dandiset, DandiStore, add_folder
from neuralpile_dagster_tests.servers.http import Request, Response, Server, file_response, json_response


class DandiApi:
    """The application of the server."""

    def __init__(self, store: DandiStore) -> None:
        self.store = store

    def __call__(self, request: Request) -> Response:
        """Answer one request."""
        for pattern, answer in (
            (r"/api/info/", self._info),
            (r"/api/dandisets/(\w+)/", self._dandiset),
            (r"/api/dandisets/(\w+)/versions/([\w.]+)/(info/)?", self._version),
            (r"/api/dandisets/(\w+)/versions/([\w.]+)/assets/", self._assets),
            (r"/api/assets/([\w-]+)/(info/|download/)?", self._asset),
            (r"/(blobs)/\w+/\w+/([\w-]+)", self._blob),
            (r"/(signed)/([\w-]+)", self._blob),
        ):
            found = re.fullmatch(pattern, request.path)
            if found:
                return answer(request, *found.groups())
        return _not_found()

    def _info(self, request: Request) -> Response:
        api = {"url": f"{_base(request)}/api"}
        return json_response({"schema_version": "0.6.9", "version": "0.0.1", "services": {"api": api}})

    def _dandiset(self, request: Request, dandiset_id: str) -> Response:
        dandiset = self.store.dandisets.get(dandiset_id)
        if dandiset is None:
            return _not_found()
        if refusal := _refusal(request, dandiset):
            return refusal
        published = [version for version in dandiset.versions.values() if version.name != "draft"]
        return json_response(
            {
                "identifier": dandiset_id,
                "created": CREATED,
                "modified": CREATED,
                "contact_person": "Tester, A",
                "embargo_status": "EMBARGOED" if dandiset.api_key else "OPEN",
                "most_recent_published_version": published[-1].document() if published else None,
                "draft_version": dandiset.versions["draft"].document(),
            }
        )

    def _version(self, request: Request, dandiset_id: str, name: str, info: str | None) -> Response:
        dandiset = self.store.dandisets.get(dandiset_id)
        if dandiset is None or name not in dandiset.versions:
            return _not_found()
        if refusal := _refusal(request, dandiset):
            return refusal
        version = dandiset.versions[name]
        if info:
            return json_response(version.document() | {"asset_validation_errors": [], "version_validation_errors": []})
        return json_response({"name": "made for tests", "version": name, **version.metadata})

    def _assets(self, request: Request, dandiset_id: str, name: str) -> Response:
        dandiset = self.store.dandisets.get(dandiset_id)
        if dandiset is None or name not in dandiset.versions:
            return _not_found()
        if refusal := _refusal(request, dandiset):
            return refusal
        query, base = request.query, _base(request)
        page, size = int(query.get("page", 1)), int(query.get("page_size", 100))
        assets = list(dandiset.versions[name].assets.values())
        if query.get("order") == "path":
            assets.sort(key=lambda asset: asset.row["path"])
        following = None
        if page * size < len(assets):
            target = re.sub(r"([?&])page=\d+&?", r"\1", request.target).rstrip("?&")
            following = f"{base}{target}{'&' if '?' in target else '?'}page={page + 1}"
        shown = assets[(page - 1) * size : page * size]
        return json_response(
            {
                "count": len(assets) if page == 1 else None,
                "next": following,
                "previous": None,
                "results": [asset.entry(base, query.get("metadata") == "true") for asset in shown],
            }
        )

    def _asset(self, request: Request, asset_id: str, what: str | None) -> Response:
        if asset_id not in self.store.assets:
            return _not_found()
        dandiset, asset = self.store.assets[asset_id]
        if refusal := _refusal(request, dandiset):
            return refusal
        base = _base(request)
        if what == "download/":
            signed = f"{base}/signed/{asset.row['blob']}?X-Amz-Signature={self.store.signature}"
            return Response(302, {"Location": signed})
        if what == "info/":
            return json_response(asset.entry(base, with_metadata=True))
        return json_response(asset.metadata(base))

    def _blob(self, request: Request, kind: str, blob: str) -> Response:
        if blob not in self.store.blobs or self.store.blobs[blob][1].file is None:
            return Response(404, {}, b"<Error><Code>NoSuchKey</Code></Error>")
        dandiset, asset = self.store.blobs[blob]
        signed = kind == "signed" and request.query.get("X-Amz-Signature") == str(self.store.signature)
        # like S3, a signed URL with another kind of authorization besides is refused
        if "authorization" in request.headers or not (signed or (kind == "blobs" and dandiset.api_key is None)):
            return Response(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
        assert asset.file is not None
        if not self.store.ranges:
            return Response(200, {"ETag": f'"{asset.etag}"'}, asset.file.read_bytes())
        return file_response(request, asset.file, asset.etag)


def _base(request: Request) -> str:
    return f"http://{request.headers['host']}"


def _not_found() -> Response:
    return json_response({"detail": "Not found."}, 404)


def _refusal(request: Request, dandiset: Dandiset) -> Response | None:
    given = request.headers.get("authorization")
    if dandiset.api_key is None or given == f"token {dandiset.api_key}":
        return None
    detail = "Invalid token." if given else "Authentication credentials were not provided."
    return json_response({"detail": detail}, 401)


class DandiServer:
    """A running server: its store, its faults and log (`http.Server`), its URLs."""

    def __init__(self, store: DandiStore, http: Server) -> None:
        self.store = store
        self.http = http
        self.faults = http.faults
        self.api_url = f"{http.url}/api"


@contextmanager
def dandi_server(*, latency_s: float = 0.0, bytes_per_s: float = 0.0) -> Iterator[DandiServer]:
    """An empty DANDI archive on a free port."""
    store = DandiStore()
    with Server(DandiApi(store), latency_s=latency_s, bytes_per_s=bytes_per_s) as http:
        yield DandiServer(store, http)


def main() -> None:
    """Serve a folder; prints one line of JSON with the API's URL."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes per second and connection; 0: no limit")
    arguments = parser.parse_args()
    with dandi_server(latency_s=arguments.latency, bytes_per_s=arguments.rate) as server:
        add_folder(server.store, arguments.folder)
        print(json.dumps({"api_url": server.api_url}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
