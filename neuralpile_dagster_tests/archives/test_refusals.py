"""Trouble that no other attempt can change is said at once; what a server asks for binds all who read from it."""

from __future__ import annotations

import datetime
import ipaddress
import logging
import os
import re
import resource
import socket
import ssl
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from urllib3.exceptions import LocationParseError

from neuralpile_dagster.archives.dandi import DandiArchive
from neuralpile_dagster.archives.downloads import DownloadCache
from neuralpile_dagster.archives.figshare import FigshareArchive
from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.catalog.model import Source
from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable, StoreError, TransientError
from neuralpile_dagster.hub.huggingface import HuggingFaceHub
from neuralpile_dagster.net import retry
from neuralpile_dagster.net.http import Connections
from neuralpile_dagster.net.ranges import RemoteObject
from neuralpile_dagster.net.retry import AttemptFailed, RetryPolicy, network_errors, retry_call
from neuralpile_dagster_tests.fixtures.archives import QUICK
from neuralpile_dagster_tests.fixtures.bucket import Bucket
from neuralpile_dagster_tests.servers.faults import status
from neuralpile_dagster_tests.servers.http import Response, Server

SECRET = "X-Amz-Signature=0123456789abcdef"
NO_URLS = [
    f"http://[::1/x?{SECRET}",
    f"ftp://127.0.0.1/x?{SECRET}",
    f"http://127.0.0.1:port/x?{SECRET}",
    *(RELATIVE := [f"http:///x?{SECRET}", f"x?{SECRET}"]),  # as a redirect's target they are ones
]


def self_signed(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody trusts, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    begins = datetime.datetime(2020, 1, 1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(begins.replace(year=2120))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(*pem) + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def secured(bucket: Bucket, tmp_path: Path) -> Iterator[Server]:
    bucket.path.write_bytes(bytes(1000))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    with Server(bucket, tls=context) as server:
        yield server


def read(url: str | None, fresh: str = "", limits: RetryPolicy = QUICK) -> bytes:
    remote = RemoteObject("sub-1/a.nwb", 1000, url, lambda: fresh or str(url), Connections(2, limits))
    content = bytearray(1000)
    try:
        remote.read_into(0, memoryview(content))
    finally:
        remote.close()
    return bytes(content)


def assert_final(error: ArchiveError, caplog: pytest.LogCaptureFixture) -> None:
    assert not isinstance(error, ArchiveUnavailable)
    assert "trying again" not in caplog.text
    assert SECRET not in "".join(traceback.format_exception(error)) + caplog.text


NOWHERE = "http://archive.invalid"  # a name that never resolves (RFC 6761)


def test_a_name_that_does_not_resolve_is_said_in_words_with_what_to_check(tmp_path: Path):
    cache = DownloadCache(tmp_path)
    dandi = DandiArchive(f"{NOWHERE}/api", None, cache, 1, QUICK)
    figshare = FigshareArchive(f"{NOWHERE}/v2", cache, 1, QUICK)
    hub = HuggingFaceHub("lab", NOWHERE, "hf_x", policy=QUICK)
    for fails in (
        lambda: dandi.list_files(Source(id="990002", version="draft")),
        lambda: figshare.list_files(Source(archive="figshare", id="1", version="1")),
        lambda: read(f"{NOWHERE}/x"),
        lambda: hub.files("x"),
    ):
        with pytest.raises(TransientError) as caught:
            fails()
        assert "the host's name could not be resolved" in caught.value.found
        assert caught.value.remedy.startswith(
            "check this machine's internet connection and, where it needs one, the proxy"
        )


def test_too_many_open_files_are_said_at_once(bucket: Bucket, bucket_server: Server):
    bucket.path.write_bytes(bytes(1000))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reading, writing = os.pipe()
    # in a process of its own: under such a limit, the loops of servers that other tests use here end
    if not (child := os.fork()):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            read(f"{bucket_server.url}/x")
        except StoreError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        assert re.search(r"may not open another file; .* limit is 0 .* ulimit -n 1024", said.read())
    os.waitpid(child, 0)


def test_a_certificate_that_is_not_trusted_is_said_at_once(
    secured: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, telling: None
):
    cache = DownloadCache(tmp_path / "cache")
    for use in (
        lambda: read(f"{secured.url}/x?{SECRET}"),
        lambda: DandiArchive(f"{secured.url}/api", None, cache, 2, QUICK).list_files(Source(id="000001")),
        lambda: FigshareArchive(f"{secured.url}/v2", cache, 2, QUICK).list_files(Source(archive="figshare", id="5")),
    ):
        with pytest.raises(ArchiveError, match=r"certificate is not trusted.*self-signed.*CA_BUNDLE") as found:
            use()
        assert_final(found.value, caplog)
    assert secured.log == []


def test_a_certificate_that_the_environment_names_is_trusted(
    secured: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
    assert read(f"{secured.url}/x") == bytes(1000)


@pytest.mark.parametrize("url", NO_URLS)
def test_a_url_that_is_none_is_said_at_once_and_never_shown(
    bucket_server: Server, url: str, caplog: pytest.LogCaptureFixture, telling: None
):
    bucket_server.application = lambda request: Response(302, {"Location": url})
    uses = [lambda: read(url), lambda: read(None, url)]
    if url not in RELATIVE:
        uses.append(lambda: read(f"{bucket_server.url}/x?{SECRET}"))
    for use in uses:
        with pytest.raises(ArchiveError, match="invalid URL") as caught:
            use()
        assert_final(caught.value, caplog)


@pytest.mark.parametrize("url", [url for url in NO_URLS if url not in RELATIVE])
def test_an_api_that_gives_urls_that_are_none_is_said_at_once_and_they_are_never_shown(
    bucket_server: Server, tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture, telling: None
):
    bucket_server.application = lambda request: Response(302, {"Location": url})
    archive = DandiArchive(f"{bucket_server.url}/api", None, DownloadCache(tmp_path / "cache"), 2, QUICK)
    with pytest.raises(ArchiveError, match=r"dandi 000001: .* not understood|cannot be read: invalid URL") as caught:
        archive.list_files(Source(id="000001"))
    assert_final(caught.value, caplog)
    file = ArchiveFile(path="sub-1/a.nwb", size=1000, file_id="1")
    with (
        pytest.raises(ArchiveError, match=r"sub-1/a\.nwb.*(invalid URL|not understood)") as caught,
        archive.open(Source(id="000001"), file) as opened,
    ):
        opened.hdf5()
    assert_final(caught.value, caplog)


def test_an_api_that_redirects_in_a_circle_is_unavailable(bucket_server: Server, tmp_path: Path):
    bucket_server.application = lambda request: Response(302, {"Location": request.target})
    archive = DandiArchive(f"{bucket_server.url}/api", None, DownloadCache(tmp_path / "cache"), 2, QUICK)
    with pytest.raises(ArchiveUnavailable, match=r"dandi 000001 could not be read from .*TooManyRedirects"):
        archive.list_files(Source(id="000001"))
    with pytest.raises(ArchiveUnavailable, match="more than 5 redirects"):
        read(f"{bucket_server.url}/x")


@pytest.mark.parametrize("url", NO_URLS)
def test_an_invalid_url_of_figshare_is_said_at_once(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture, telling: None
):
    with pytest.raises(ArchiveError, match="invalid URL") as caught:
        FigshareArchive(url, DownloadCache(tmp_path), 2, QUICK).list_files(Source(archive="figshare", id="5"))
    assert_final(caught.value, caplog)


def test_a_final_error_does_not_carry_the_text_of_its_cause():
    with pytest.raises(ArchiveError, match="invalid URL") as caught, network_errors("x", "http://h.org"):
        raise LocationParseError(f"http://h.org:port/x?{SECRET}")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_of_a_url_no_more_than_scheme_and_host_is_shown():
    assert retry.host(f"https://ann:password@h.org:8080/x?{SECRET}") == "https://h.org:8080"
    assert retry.host(f"https://[::1/x?{SECRET}") == "an invalid URL"


def test_errors_that_are_each_other_s_cause_end_the_search_for_the_innermost():
    one, other = OSError("one"), OSError("other")
    one.__cause__, other.__cause__ = other, one
    assert retry.inner_error(one, socket.gaierror) is None


def test_a_call_that_is_stopped_is_not_retried():
    calls: list[int] = []

    def attempt() -> None:
        calls.append(1)
        raise AttemptFailed("reset")

    with pytest.raises(AttemptFailed):
        retry_call(attempt, "x", QUICK, stop=lambda: True)
    assert calls == [1]


def test_a_servers_retry_after_binds_all_threads_that_read_the_same_object(
    bucket: Bucket, bucket_server: Server, telling: None
):
    bucket.path.write_bytes(bytes(2000))
    url = f"{bucket_server.url}/x"
    limits = RetryPolicy(retry_after_max_s=300)
    remote = RemoteObject("x", 2000, url, lambda: url, Connections(2, limits))
    told, reads = threading.Event(), []

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    def read(start: int) -> None:
        try:
            remote.read_into(start, memoryview(bytearray(1000)))
        except ArchiveUnavailable as error:
            reads.append(error.found)

    bucket_server.faults.add(status(429, 200))
    log, handler = logging.getLogger("neuralpile_dagster.progress"), Told()
    log.addHandler(handler)
    first, second = (threading.Thread(target=read, args=(start,)) for start in (0, 1000))
    try:
        first.start()
        assert told.wait(60)  # the first thread waits
        second.start()
        second.join(0.5)  # it would be done by now
        assert second.is_alive()
    finally:
        log.removeHandler(handler)
        remote.stop()
        first.join()
        second.join()
        remote.close()
    assert len(reads) == 2
    assert len(bucket_server.log) == 1
