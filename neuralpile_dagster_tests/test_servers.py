"""The small test server serves files as S3 does: compared with moto, request by request."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import httpx2
import pytest

from neuralpile_dagster_tests.servers.http import Request, Response, Server, file_response
from neuralpile_dagster_tests.servers.s3 import S3Server

CONTENT = bytes(range(256)) * 4
REQUESTS = {
    "whole": {},
    "range": {"Range": "bytes=3-9"},
    "range to the end": {"Range": "bytes=1000-"},
    "range beyond the end": {"Range": "bytes=1000-5000"},
    "last bytes": {"Range": "bytes=-8"},
    "more last bytes than there are": {"Range": "bytes=-5000"},
    "range after the end": {"Range": "bytes=1024-1030"},
    "the same object": {"If-Match": "ETAG"},
    "the same object, a range": {"If-Match": "ETAG", "Range": "bytes=3-9"},
    "another object": {"If-Match": '"0123456789abcdef0123456789abcdef"'},
    "another object, a range": {"If-Match": '"0123456789abcdef0123456789abcdef"', "Range": "bytes=3-9"},
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_is_served_as_s3_serves_an_object(s3: S3Server, tmp_path: Path, method: str, name: str):
    bucket = s3.new_bucket()
    etag = s3.client.put_object(Bucket=bucket, Key="x", Body=CONTENT)["ETag"]
    (tmp_path / "x").write_bytes(CONTENT)
    headers = {key: etag if value == "ETAG" else value for key, value in REQUESTS[name].items()}
    operation = {"GET": "get_object", "HEAD": "head_object"}[method]
    url = s3.client.generate_presigned_url(operation, {"Bucket": bucket, "Key": "x"})
    theirs = httpx2.request(method, url, headers=headers)
    with Server(lambda request: file_response(request, tmp_path / "x", etag.strip('"'))) as server:
        ours = httpx2.request(method, server.url, headers=headers)
    assert ours.status_code == theirs.status_code
    if theirs.is_success:
        assert ours.content == theirs.content
        for header in ("ETag", "Content-Length", "Content-Range", "Accept-Ranges"):
            assert ours.headers.get(header) == theirs.headers.get(header), header
    elif method == "GET":
        assert re.findall("<Code>.*</Code>", ours.text) == re.findall("<Code>.*</Code>", theirs.text)


def test_a_body_whose_client_hangs_up_is_not_taken_for_a_whole_one():
    taken: list[bytes] = []

    def take(request: Request) -> Response:
        taken.append(request.body)
        return Response(200)

    with Server(take) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b"", "the server hangs up too"
        httpx2.post(server.url, content=b"whole")
    assert taken == [b"whole"]
