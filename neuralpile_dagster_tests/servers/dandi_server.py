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
from typing import Any
from urllib.parse import urlencode

from dandi.dandiapi import RemoteDandisetData, VersionInfo
from dandi.utils import ServerInfo
from dandischema.conf import get_instance_config
from dandischema.consts import ALLOWED_INPUT_SCHEMAS, DANDI_SCHEMA_VERSION
from pydantic import BaseModel

from neuralpile_dagster_tests.servers.dandi_documents import CREATED
from neuralpile_dagster_tests.servers.dandi_store import IDENTIFIER, VERSION, Dandiset, DandiStore, Version, add_folder
from neuralpile_dagster_tests.servers.http import Request, Response, Server, file_response, json_response

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"  # dandiapi/api/models/asset.py
NESTED = rf"dandisets/{IDENTIFIER}/versions/(?:{VERSION})/"
MAX_PAGE_SIZE = 1000  # dandiapi/api/views/pagination.py, LazyPagination


class DandiApi:
    """The application of the server; paths, pages and errors are those of dandi-archive (see `dandi_documents`)."""

    def __init__(self, store: DandiStore) -> None:
        self.store = store

    def __call__(self, request: Request) -> Response:
        """Answer one request."""
        for pattern, answer in (
            (r"/api/info/", self._info),
            (rf"/api/dandisets/({IDENTIFIER})/", self._dandiset),
            (rf"/api/dandisets/({IDENTIFIER})/versions/({VERSION})/(info/)?", self._version),
            (rf"/api/dandisets/({IDENTIFIER})/versions/({VERSION})/assets/", self._assets),
            (
                rf"/api/(?:dandisets/{IDENTIFIER}/versions/(?:{VERSION})/)?assets/({UUID})/(info/|download/)?",
                self._asset,
            ),
            (r"/(blobs)/\w+/\w+/([\w-]+)", self._blob),
            (r"/(signed)/([\w-]+)", self._blob),
        ):
            found = re.fullmatch(pattern, request.path)
            if found:
                return answer(request, *found.groups())
        return Response(404, {"Content-Type": "text/html; charset=utf-8"}, b"<h1>Not Found</h1>")  # of Django

    def _info(self, request: Request) -> Response:
        """``dandiapi/api/views/info.py``."""
        base = _base(request)
        document = {
            "instance_config": get_instance_config().model_dump(mode="json", exclude_none=False),
            "schema_version": DANDI_SCHEMA_VERSION,
            "schema_url": f"{base}/api/schemas/?model=Dandiset",
            "allowed_schema_versions": ALLOWED_INPUT_SCHEMAS,
            "version": "0.28.0",
            "cli-minimal-version": "0.74.0",
            "cli-requires-python": ">=3.10",
            "cli-bad-versions": [],
            "services": {name: {"url": f"{base}/api"} for name in ("api", "webui", "jupyterhub")},
        }
        return _checked(ServerInfo, document)

    def _dandiset(self, request: Request, dandiset_id: str) -> Response:
        """``dandiapi/api/views/serializers.py``, ``DandisetDetailSerializer``."""
        dandiset = self.store.dandisets.get(dandiset_id)
        if dandiset is None:
            return _not_found()
        if refusal := self._refusal(request, dandiset):
            return refusal
        latest, draft = dandiset.latest, dandiset.versions["draft"]
        document = {
            "identifier": dandiset_id,
            "created": CREATED,
            "modified": CREATED,
            "contact_person": (latest or draft).contact,
            "embargo_status": "EMBARGOED" if dandiset.embargoed else "OPEN",
            "star_count": 0,
            "is_starred": False,
            "most_recent_published_version": latest and latest.document(),
            "draft_version": draft.document(),
        }
        return _checked(RemoteDandisetData, document)

    def _find(self, request: Request, dandiset_id: str, name: str) -> tuple[Dandiset, Version] | Response:
        dandiset = self.store.dandisets.get(dandiset_id)
        if dandiset is None or name not in dandiset.versions:
            return _not_found()
        return self._refusal(request, dandiset) or (dandiset, dandiset.versions[name])

    def _version(self, request: Request, dandiset_id: str, name: str, info: str | None) -> Response:
        """``dandiapi/api/views/version.py``; with ``info``, ``VersionDetailSerializer``."""
        found = self._find(request, dandiset_id, name)
        if isinstance(found, Response):
            return found
        dandiset, version = found
        metadata = version.metadata(_base(request), dandiset.embargoed)
        if not info:
            return json_response(metadata)
        document = {
            **version.document(),
            "dandiset": json.loads(_bytes(self._dandiset(request, dandiset_id))),
            "asset_validation_errors": [],
            "version_validation_errors": [],
            "metadata": metadata,
            "contact_person": version.contact,
        }
        for nested in ("most_recent_published_version", "draft_version"):  # DandisetSerializer has them not
            del document["dandiset"][nested]
        return _checked(VersionInfo, document)

    def _assets(self, request: Request, dandiset_id: str, name: str) -> Response:
        """``dandiapi/api/views/asset.py``, ``NestedAssetViewSet.list``, with ``pagination.LazyPagination``."""
        found = self._find(request, dandiset_id, name)
        if isinstance(found, Response):
            return found
        dandiset, version = found
        query = request.query
        page, size = int(query.get("page", 1)), min(int(query.get("page_size", 100)), MAX_PAGE_SIZE)
        if page < 1:
            return json_response({"detail": "Invalid page."}, 404)
        assets = list(version.assets.values())
        if query.get("order") == "path":
            assets.sort(key=lambda asset: asset.path)
        shown = assets[(page - 1) * size : page * size]
        with_metadata = query.get("metadata") == "true"
        return json_response(
            {
                "count": len(assets) if page == 1 else None,
                "next": _page_url(request, page + 1) if page * size < len(assets) else None,
                "previous": _page_url(request, page - 1) if page > 1 else None,
                "results": [asset.entry(_base(request), dandiset.embargoed, with_metadata) for asset in shown],
            }
        )

    def _asset(self, request: Request, asset_id: str, what: str | None) -> Response:
        """``dandiapi/api/views/asset.py``, ``AssetViewSet``: ``retrieve``, ``info``, ``download``."""
        if asset_id not in self.store.assets:
            return _not_found()
        dandiset, asset = self.store.assets[asset_id]
        if refusal := self._refusal(request, dandiset):
            return refusal
        base = _base(request)
        if what == "info/":
            return json_response(asset.entry(base, dandiset.embargoed, with_metadata=True))
        if what is None:
            return json_response(asset.metadata(base, dandiset.embargoed))
        if asset.zarr is not None:
            text = "Unable to provide download link for zarr assets. Please browse the zarr files directly to do so."
            return json_response(text, 400)
        return Response(302, {"Location": f"{base}/signed/{asset.blob}?X-Amz-Signature={self.store.signature}"})

    def _refusal(self, request: Request, dandiset: Dandiset) -> Response | None:
        """``raise_if_unauthorized`` in ``dandiapi/api/views/asset.py``; the texts are those of REST framework."""
        given = request.headers.get("authorization")
        if given is None and not dandiset.embargoed:
            return None
        bearer = {"WWW-Authenticate": 'Bearer realm="api"'}
        if given is None:
            return json_response({"detail": "Authentication credentials were not provided."}, 401, bearer)
        key = given.removeprefix("token ")
        owners = {each.api_key for each in self.store.dandisets.values()}
        if key not in owners | self.store.strangers:
            return json_response({"detail": "Invalid token."}, 401, bearer)
        if dandiset.embargoed and key != dandiset.api_key:
            return json_response({"detail": "You do not have permission to perform this action."}, 403)
        return None

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


def _bytes(response: Response) -> bytes:
    assert isinstance(response.body, bytes)
    return response.body


def _checked(form: type[BaseModel], document: dict[str, Any]) -> Response:
    """A document that the real client understands."""
    form.model_validate(document)
    return json_response(document)


def _page_url(request: Request, page: int) -> str:
    """The link to another page: ``replace_query_param`` of REST framework sorts the query, page 1 has no ``page``."""
    query = {name: value for name, value in request.query.items() if name != "page"}
    if page > 1:
        query["page"] = str(page)
    return f"{_base(request)}{request.target.split('?')[0]}?{urlencode(sorted(query.items()))}"


def _not_found() -> Response:
    return json_response({"detail": "Not found."}, 404)


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
