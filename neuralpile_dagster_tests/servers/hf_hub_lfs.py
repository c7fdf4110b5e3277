"""Git LFS as the Hub speaks it: batch, basic and multipart upload, verify."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from neuralpile_dagster_tests.servers.hf_hub_store import HubStore, Refused
from neuralpile_dagster_tests.servers.http import Request, Response, json_response

SIGNATURE = "X-Amz-Signature=5ecre7"


class LfsStore:
    """Uploads on their way into a `HubStore`; an object exists once it is verified, as on the Hub."""

    def __init__(self, store: HubStore, part_bytes: int, count: Callable[[str, int], None]) -> None:
        self._store = store
        self._part_bytes = part_bytes
        self._count = count

    def batch(self, request: Request, url: str, repository: str) -> Response:
        """Tell for each object whether and where to upload it."""
        objects = [self._actions(wanted, url, repository) for wanted in json.loads(request.body)["objects"]]
        return json_response({"transfer": "basic", "objects": objects})

    def _actions(self, wanted: dict[str, Any], url: str, repository: str) -> dict[str, Any]:
        oid, size = wanted["oid"], wanted["size"]
        if self._store.lfs_path(oid).is_file():
            return {"oid": oid, "size": size}
        verify = {"href": f"{url}/datasets/{repository}.git/info/lfs/objects/verify", "header": {}}
        upload: dict[str, Any] = {"href": f"{url}/lfs/put/{oid}?{SIGNATURE}", "header": {}}
        if size > self._part_bytes:
            count = -(-size // self._part_bytes)
            header = {str(k): f"{url}/lfs/part/{oid}/{k}?{SIGNATURE}" for k in range(1, count + 1)}
            upload = {
                "href": f"{url}/api/complete_multipart?{SIGNATURE}",
                "header": {**header, "chunk_size": str(self._part_bytes)},
            }
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def answer(self, request: Request, parts: list[str]) -> Response:
        """The upload URLs that `batch` gave out."""
        uploads = self._store.root / "uploads"
        match request.method, parts:
            case "PUT", ["put", oid]:
                self._count("lfs", len(request.body))
                (uploads / oid).write_bytes(request.body)
                return Response(200)
            case "PUT", ["part", oid, number]:
                self._count("lfs", len(request.body))
                (uploads / f"{oid}.{number}").write_bytes(request.body)
                return Response(200, {"ETag": f'"{hashlib.md5(request.body, usedforsecurity=False).hexdigest()}"'})
            case "POST", ["complete"]:
                done = json.loads(request.body)
                pieces = [uploads / f"{done['oid']}.{part['partNumber']}" for part in done["parts"]]
                (uploads / done["oid"]).write_bytes(b"".join(piece.read_bytes() for piece in pieces))
                return json_response({"success": True})
            case "POST", ["verify"]:
                oid = json.loads(request.body)["oid"]
                if not self._store.lfs_path(oid).is_file():
                    if not (uploads / oid).is_file():
                        raise Refused(404, "not uploaded")
                    self._store.add_lfs((uploads / oid).read_bytes(), oid)
                return json_response({"success": True})
            case _:
                return Response(404)
