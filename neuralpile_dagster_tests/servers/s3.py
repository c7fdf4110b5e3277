"""A real S3 API on 127.0.0.1: moto's server behind one that counts, and injects faults.

Nothing is answered here. What the store uses of S3 is moto's, from AWS's API reference: GetObject with ``Range``
and ``If-Match`` ("otherwise, return a 412 Precondition Failed error"), HeadObject, PutObject, multipart uploads,
ListObjectsV2, DeleteObject(s), presigned URLs.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3

from neuralpile_dagster_tests.servers.http import FilePart, Request, Response, Server

ACCESS_KEY = "test-access-key"
SECRET_KEY = "a-secret-that-no-error-may-show"
_OF_ONE_CONNECTION = ("connection", "transfer-encoding", "content-length", "expect", "date", "server")


@dataclass(frozen=True)
class S3Server:
    """``front`` is where clients go (faults, log of requests and bytes); ``client`` goes past it."""

    front: Server
    client: Any

    def environment(self) -> dict[str, str]:
        """All ``AWS_*`` variables of a process that uses this server."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.front.url,
            "AWS_REGION": "eu-central-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Have this process use the server, without faults, and nothing of the machine's own configuration."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in self.environment().items():
            patch.setenv(name, value)
        self.front.faults.clear()

    def new_bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"pile-{uuid.uuid4().hex[:16]}"
        self.client.create_bucket(Bucket=name)
        return name

    def names(self, bucket: str) -> list[str]:
        """Everything that is complete in a bucket."""
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=bucket).get("Contents", ())]

    def unfinished_uploads(self, bucket: str) -> int:
        """Uploads in parts that were neither completed nor aborted."""
        return len(self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()))


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server of its own, empty, for as long as the ``with`` lasts."""
    import boto3
    from moto.server import ThreadedMotoServer  # slow, and few processes need it

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        url = "http://{}:{}".format(*moto.get_host_and_port())
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        with urllib3.PoolManager(maxsize=32, retries=False) as pool, Server(_forwarder(url, pool)) as front:
            yield S3Server(front, client)
    finally:
        moto.stop()


def _forwarder(url: str, pool: urllib3.PoolManager) -> Any:
    def forward(request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in _OF_ONE_CONNECTION}
        answer = pool.request(request.method, url + request.target, headers=headers, body=request.body, redirect=False)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _OF_ONE_CONNECTION}
        # the answer to HEAD has the length of a body that is not sent
        length = int(answer.headers.get("content-length") or 0)
        body = FilePart(Path(), 0, length) if request.method == "HEAD" else answer.data
        return Response(answer.status, kept, body)

    return forward
