"""Git LFS as the Hub speaks it: batch, basic and multipart upload, verify; and the storage that the files lie in.

The storage is another host, as on the Hub (S3 and CloudFront): it knows signed URLs, and no tokens of the Hub.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from neuralpile_dagster_tests.servers.hf_hub_store import Entry, HubStore, Refused
from neuralpile_dagster_tests.servers.http import Request, Response, file_response, json_response

SIGNATURE = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=5ecre7"
# S3's answer to a signed URL with an Authorization header (docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses)
_TWO_MECHANISMS = (
    b"<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed; only the X-Amz-Algorithm query "
    b"parameter, Signature query string parameter or the Authorization header should be specified</Message></Error>"
)


class LfsStore:
    """Uploads on their way into a `HubStore`; an object exists once it is verified, as on the Hub.

    ``url`` is the storage's, ``hub_url`` the hub's.
    """

    def __init__(
        self, store: HubStore, part_bytes: int, count: Callable[[str, int], None], url: str, hub_url: str
    ) -> None:
        self._store = store
        self._part_bytes = part_bytes
        self._count = count
        self._url = url
        self._hub_url = hub_url
        self._uploads = store.root / "uploads"

    def download_url(self, entry: Entry, path: str) -> str:
        """A signed URL of a file's content."""
        name = quote(f'attachment; filename="{path.rpartition("/")[2]}";')
        return f"{self._url}/lfs/get/{entry.lfs}?response-content-disposition={name}&{SIGNATURE}"

    def batch(self, request: Request, repository: str) -> Response:
        """Say for each object whether and where to upload it (git-lfs/docs/api/batch.md)."""
        objects = [self._actions(wanted, repository) for wanted in json.loads(request.body)["objects"]]
        parts = any("chunk_size" in each.get("actions", {}).get("upload", {}).get("header", {}) for each in objects)
        return json_response({"transfer": "multipart" if parts else "basic", "objects": objects})

    def _actions(self, wanted: dict[str, Any], repository: str) -> dict[str, Any]:
        oid, size = wanted["oid"], wanted["size"]
        if self._store.lfs_path(oid).is_file():
            return {"oid": oid, "size": size}
        verify = {"href": f"{self._hub_url}/datasets/{repository}.git/info/lfs/objects/verify"}
        upload: dict[str, Any] = {"href": f"{self._url}/lfs/put/{oid}?{SIGNATURE}"}
        if size > self._part_bytes:
            count = -(-size // self._part_bytes)
            header = {str(k): f"{self._url}/lfs/part/{oid}/{k}?{SIGNATURE}" for k in range(1, count + 1)}
            upload = {
                "href": f"{self._hub_url}/api/complete_multipart?{SIGNATURE}",
                "header": {**header, "chunk_size": str(self._part_bytes)},
            }
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def complete(self, request: Request) -> Response:
        """Join the parts of an upload."""
        done = json.loads(request.body)
        pieces = [self._uploads / f"{done['oid']}.{part['partNumber']}" for part in done["parts"]]
        (self._uploads / done["oid"]).write_bytes(b"".join(piece.read_bytes() for piece in pieces))
        return Response(200)

    def verify(self, request: Request) -> Response:
        """Take an uploaded object, or refuse it."""
        oid = json.loads(request.body)["oid"]
        if not self._store.lfs_path(oid).is_file():
            if not (self._uploads / oid).is_file():
                raise Refused(404, "not uploaded")
            self._store.add_lfs((self._uploads / oid).read_bytes(), oid)
        return Response(200)

    def answer_storage(self, request: Request) -> Response:
        """The signed URLs."""
        if "authorization" in request.headers:
            return Response(400, {"Content-Type": "application/xml"}, _TWO_MECHANISMS)
        if SIGNATURE not in request.target:
            return Response(403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
        match request.method, request.path.strip("/").split("/"):
            case "GET" | "HEAD", ["lfs", "get", oid]:
                return file_response(request, self._store.lfs_path(oid), oid)
            case "PUT", ["lfs", "put", oid]:
                self._count("lfs", len(request.body))
                (self._uploads / oid).write_bytes(request.body)
                return Response(200, {"ETag": _md5(request.body)})
            case "PUT", ["lfs", "part", oid, number]:
                self._count("lfs", len(request.body))
                (self._uploads / f"{oid}.{number}").write_bytes(request.body)
                return Response(200, {"ETag": _md5(request.body)})
            case _:
                return Response(404, {"Content-Type": "application/xml"}, b"<Error><Code>NoSuchKey</Code></Error>")


def _md5(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
