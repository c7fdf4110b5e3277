"""The store on S3 when the network, the server or its configuration is at fault; what its errors say, and what not."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import numpy as np
import pytest

from neuralpile_dagster import progress
from neuralpile_dagster.errors import StoreError, StoreUnavailable, TableError
from neuralpile_dagster.net.retry import RetryPolicy
from neuralpile_dagster.store.s3 import S3Store
from neuralpile_dagster.tables.rows import RowReader, RowWriter
from neuralpile_dagster_tests.fixtures.stores import put
from neuralpile_dagster_tests.servers.faults import Fault, status
from neuralpile_dagster_tests.servers.s3 import SECRET_KEY, S3Server

TRANSIENT = [
    status(503),
    status(500),
    status(503, retry_after=0),
    Fault("reset"),
    Fault("reset", after_serving=True),
    Fault("status", status=500, after_serving=True),
]
TRANSIENT_BODIES = [Fault("reset_mid_body"), Fault("short_body"), Fault("short_unmarked"), Fault("hang_mid_body")]
HASTY = RetryPolicy(connect_timeout_s=1, read_timeout_s=1, attempts=2)


def ids(fault: Fault) -> str:
    return (
        f"{fault.kind} {fault.status if fault.kind == 'status' else ''} {'lost reply' if fault.after_serving else ''}"
    )


def error_reply(code: str, http: int, **match: object) -> Fault:
    body = f"<Error><Code>{code}</Code><Message>you sent {SECRET_KEY}</Message></Error>"
    return Fault("status", status=http, body=body.encode(), **match)  # type: ignore[arg-type]


def strike(s3: S3Server, fault: Fault, **match: object) -> None:
    s3.front.faults.add(Fault(**{**fault.__dict__, **match}))  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", TRANSIENT, ids=ids)
def test_a_fault_that_passes_is_not_noticed(s3: S3Server, s3_store: S3Store, fault: Fault):
    put(s3_store, "a/b", bytes(1000))
    uses: list[tuple[str, str, Callable[[], object], object]] = [
        ("HEAD", "a/b", lambda: s3_store.size("a/b"), 1000),
        ("GET", "a/b", lambda: s3_store.read("a/b"), bytes(1000)),
        ("GET", "list-type", lambda: list(s3_store.keys("a")), ["a/b"]),
        ("PUT", "a/b", lambda: put(s3_store, "a/b", b"new"), None),
        ("DELETE", "a/b", lambda: s3_store.delete("a/b"), None),
    ]
    for method, part, use, expected in uses:
        strike(s3, fault, method=method, path=part)
        struck = len(s3.front.faults.struck)
        assert use() == expected
        assert len(s3.front.faults.struck) == struck + 1
    assert s3_store.size("a/b") is None


@pytest.mark.parametrize("fault", TRANSIENT_BODIES, ids=ids)
def test_a_body_that_breaks_off_is_read_again(s3: S3Server, s3_store: S3Store, fault: Fault):
    if fault.kind == "hang_mid_body":
        s3_store.policy = HASTY
    content = np.random.default_rng(0).bytes(100_000)
    put(s3_store, "a/b", content)
    strike(s3, fault, method="GET")
    with s3_store.open("a/b") as file:
        assert file.read_at(50_000, 1_000) == content[1_000:51_000]
    strike(s3, fault, method="GET")
    assert s3_store.read("a/b") == content
    strike(s3, fault, method="GET", path="list-type")
    assert list(s3_store.keys("a")) == ["a/b"]


@pytest.mark.parametrize("fault", [*TRANSIENT, *TRANSIENT_BODIES, Fault("hang"), status(429), status(408)], ids=ids)
def test_a_fault_that_stays_is_an_error_that_may_pass(s3: S3Server, s3_store: S3Store, fault: Fault):
    s3_store.policy = HASTY
    put(s3_store, "a/b", bytes(100_000))
    with s3_store.open("a/b") as file:
        strike(s3, fault, method="GET|PUT", path="a/b", times=1000)
        for use in (lambda: file.read_at(50_000, 1_000), lambda: s3_store.read("a/b")):
            with pytest.raises(StoreUnavailable, match=r"s3://.*/pre/fix/a/b cannot be read; found: .*try again"):
                use()
        if fault not in TRANSIENT_BODIES:  # the reply to PUT has no body
            with pytest.raises(StoreUnavailable, match="cannot be written"):
                put(s3_store, "a/b", b"new")


@pytest.mark.parametrize("fault", [status(503), Fault("reset"), Fault("short_unmarked")], ids=ids)
def test_that_the_store_is_waited_for_is_told_without_a_word_of_its_replies(
    s3: S3Server,
    s3_store: S3Store,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(progress, "WARN_FROM_S", 0.0)
    monkeypatch.setattr(progress, "WARN_EVERY_S", 0.0)
    put(s3_store, "a/b", bytes(1000))
    assert caplog.records == []
    strike(s3, fault, method="GET", path="a/b", body=f"<Error>{SECRET_KEY}</Error>".encode())
    assert s3_store.read("a/b") == bytes(1000)
    (line,) = [record.getMessage() for record in caplog.records if record.name == progress.LOG.name]
    assert line.startswith((f"the store on S3 from {s3.front.url.removeprefix('http://')}: ", "s3://"))
    assert "; trying again" in line
    assert SECRET_KEY not in caplog.text


def test_a_table_on_a_store_that_is_away_is_not_called_damaged(s3: S3Server, s3_store: S3Store):
    with s3_store.writing("a/rows.parquet") as path, RowWriter(path) as writer:
        writer.write(np.zeros((3, 1000), np.uint8), "sub-1", "ses-1", "segment_0")
    with s3_store.open("a/rows.parquet") as file, RowReader(file, "rows") as reader:
        s3.front.faults.add(status(503, method="GET", times=1000))
        with pytest.raises(StoreUnavailable):
            reader.row(0)
    with s3_store.open("a/rows.parquet") as file, pytest.raises(StoreUnavailable):
        RowReader(file, "rows")


def test_an_upload_in_parts_survives_a_fault_in_each_of_its_requests(s3: S3Server, s3_store: S3Store):
    content = np.random.default_rng(0).bytes(33 * 1024**2)
    for match in ("POST", r"\?uploads"), ("PUT", "partNumber=2"), ("PUT", "partNumber=3"):
        s3.front.faults.add(Fault("reset", method=match[0], path=match[1]))
    s3.front.faults.add(status(503, method="POST", path=r"\?uploadId"))
    put(s3_store, "a/b", content)
    assert s3_store.read("a/b") == content
    assert s3.unfinished_uploads(s3_store.bucket) == 0


def test_an_upload_in_parts_that_fails_leaves_nothing(s3: S3Server, s3_store: S3Store):
    s3.front.faults.add(error_reply("AccessDenied", 403, method="PUT", path="partNumber=2"))
    with pytest.raises(StoreError, match=r"AccessDenied \(HTTP 403\) to UploadPart; what to do: allow"):
        put(s3_store, "a/b", bytes(17 * 1024**2))
    assert s3.names(s3_store.bucket) == []
    assert s3.unfinished_uploads(s3_store.bucket) == 0


def test_an_upload_whose_last_reply_is_lost_is_complete(s3: S3Server, s3_store: S3Store):
    s3.front.faults.add(Fault("reset", method="POST", path=r"\?uploadId", after_serving=True))
    put(s3_store, "a/b", bytes(17 * 1024**2))
    assert s3_store.size("a/b") == 17 * 1024**2


def test_an_upload_that_its_server_forgot_may_be_tried_again(s3: S3Server, s3_store: S3Store):
    s3.front.faults.add(error_reply("NoSuchUpload", 404, method="POST", path=r"\?uploadId"))
    with pytest.raises(StoreUnavailable, match="NoSuchUpload"):
        put(s3_store, "a/b", bytes(17 * 1024**2))
    put(s3_store, "a/b", bytes(17 * 1024**2))
    assert s3_store.size("a/b") == 17 * 1024**2


def test_a_damaged_table_on_s3_is_called_damaged(s3: S3Server, s3_store: S3Store):
    with s3_store.writing("a/rows.parquet") as path, RowWriter(path) as writer:
        writer.write(np.random.default_rng(0).integers(0, 9, (30, 1000), dtype=np.uint8), "s", "s", "segment_0")
    with s3_store.open("a/rows.parquet") as file, RowReader(file, "rows") as reader:
        s3.front.faults.add(Fault("flip", method="GET"))
        with pytest.raises(TableError):
            reader.row(0)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (error_reply("NoSuchBucket", 404), "NoSuchBucket.*create the bucket"),
        (error_reply("AccessDenied", 403), "AccessDenied.*s3:GetObject"),
        (error_reply("InvalidAccessKeyId", 403), "InvalidAccessKeyId.*AWS_ACCESS_KEY_ID"),
        (error_reply("SignatureDoesNotMatch", 403), "SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY"),
        (error_reply("ExpiredToken", 400), "ExpiredToken.*renew"),
        (error_reply("RequestTimeTooSkewed", 403), "RequestTimeTooSkewed.*clock"),
        (error_reply("AuthorizationHeaderMalformed", 400), "AuthorizationHeaderMalformed.*AWS_REGION"),
        (Fault("status", status=400, body=b"<html>" + SECRET_KEY.encode()), "GetObject|ResponseParserError"),
    ],
    ids=range(8),
)
def test_a_refusal_says_what_to_do_and_shows_no_secret(s3: S3Server, s3_store: S3Store, reply: Fault, expected: str):
    put(s3_store, "a/b", b"x")
    strike(s3, reply, method="GET|PUT", times=2)
    for use in (lambda: s3_store.read("a/b"), lambda: put(s3_store, "a/b", b"x")):
        with pytest.raises(StoreError, match=expected.replace("GetObject", "(Get|Put)Object")) as caught:
            use()
        assert not isinstance(caught.value, StoreUnavailable)
        assert SECRET_KEY not in "".join(traceback.format_exception(caught.value))


def test_an_unreachable_endpoint_is_named_without_its_password(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET_KEY}@127.0.0.1:9")
    away = S3Store(s3_store.bucket, "", HASTY)
    with pytest.raises(StoreUnavailable, match=r"EndpointConnectionError from 127.0.0.1:9; what to do") as caught:
        away.size("a/b")
    assert SECRET_KEY not in "".join(traceback.format_exception(caught.value))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{SECRET_KEY} is not a URL")
    with pytest.raises(StoreError, match="endpoint is not a URL") as caught:
        S3Store(s3_store.bucket, "", HASTY).size("a/b")
    assert SECRET_KEY not in "".join(traceback.format_exception(caught.value))


def test_missing_credentials_and_profiles_are_said_to_be_missing(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StoreError, match=r"Credentials.*check AWS_ACCESS_KEY_ID"):
        S3Store(s3_store.bucket, "", HASTY).size("a/b")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreError, match=r"ProfileNotFound.*AWS_PROFILE"):
        S3Store(s3_store.bucket, "", HASTY).size("a/b")


@pytest.mark.parametrize(
    ("n_bytes", "problem"), [(0, "cannot be read"), (999, "cannot be read"), (1_001, "is too long")]
)
def test_a_reply_of_another_length_than_was_asked_for_is_not_taken(
    s3: S3Server, s3_store: S3Store, n_bytes: int, problem: str
):
    """Whole by its own Content-Length, but not the bytes of the range: a proxy or a store that ignores ranges."""
    put(s3_store, "a/b", bytes(range(250)) * 40)
    with s3_store.open("a/b") as file:
        strike(s3, Fault("status", status=206, body=b"x" * n_bytes), method="GET", path="a/b", times=1000)
        with pytest.raises(StoreError, match=rf"/pre/fix/a/b {problem}; found: {n_bytes:,} bytes"):
            file.read_at(1_000, 1_000)
