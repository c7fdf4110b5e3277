"""The store on S3, Amazon's or any that speaks its protocol (``AWS_ENDPOINT_URL``).

Objects are read by ranges: all bytes requested, of the object that was opened, or an error. `pyarrow.fs.S3FileSystem`
would do, but it takes a response that breaks off without having announced its length for whole (its buffer then ends
in whatever the memory held), and it needs its own credentials, endpoint, certificates and proxy.

The client finds credentials, region, endpoint, certificates and proxies where boto3 looks for them (``AWS_*``
variables, profile, the machine's role). What an error says is made of fixed words and S3's error codes: a response or a
URL may contain secrets.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3.session
import botocore.session
import pyarrow as pa
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, IncompleteReadError
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError

from neuralpile_dagster.errors import DiskFull, StoreError, StoreUnavailable
from neuralpile_dagster.files import explained, free_bytes, remove_abandoned
from neuralpile_dagster.net.range_file import RangeFile
from neuralpile_dagster.net.retry import AttemptFailed, RetryPolicy, retry_call, worth_retrying
from neuralpile_dagster.progress import warn_of_retry
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import MAX_PREFIX_LENGTH, check_key

MAX_READ_BYTES = 256 * 1024**2
"""Longest object that `S3Store.read` takes into memory."""
_MIN_FREE_BYTES = 64 * 1024**2
"""Free disk below which no file is begun; what it will need is known only when it is written."""

_UPLOAD_PREFIX = "neuralpile-upload-"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")

# the classic client: another, where installed, knows nothing of our time-outs and retries
_TRANSFER = TransferConfig(
    multipart_threshold=16 * 1024**2,
    multipart_chunksize=16 * 1024**2,
    max_concurrency=4,
    preferred_transfer_client="classic",
)

_NETWORK_ERRORS = (HTTPClientError, ConnectionError, IncompleteReadError, ResponseParserError)
_CREDENTIALS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE"
_REGION = "set AWS_REGION to the region of the bucket"
_PERMISSIONS = (
    "allow these credentials s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and "
    "s3:AbortMultipartUpload on what is in it"
)
_REMEDIES = {
    "NoSuchBucket": "create the bucket, or correct NEURALPILE_STORE",
    "AccessDenied": _PERMISSIONS,
    "403": _PERMISSIONS,
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "InvalidToken": _CREDENTIALS,
    "ExpiredToken": "renew the credentials: they have expired",
    "RequestTimeTooSkewed": "set this machine's clock",
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "IllegalLocationConstraintException": _REGION,
}
# besides the statuses that say so. NoSuchUpload: the reply to the request that completed an upload was lost, or
# a lifecycle rule removed its parts; PreconditionFailed: the object was replaced while it was read
_TRANSIENT = {"RequestTimeout", "SlowDown", "Throttling", "OperationAborted", "NoSuchUpload", "PreconditionFailed"}
_BEGAN = "neuralpile_began"

S3_POLICY = RetryPolicy(backoff_s=0.25, backoff_max_s=20.0)


class S3Store:
    """A `Store` below ``prefix`` in a bucket.

    Files are written to the folder for temporary files (``TMPDIR``) and then
    uploaded; an object appears with the last byte of its upload. What a killed
    process leaves of an upload in parts is invisible; a lifecycle rule of the
    bucket (AbortIncompleteMultipartUpload) removes it.
    """

    readers = 16

    def __init__(self, bucket: str, prefix: str = "", policy: RetryPolicy | None = None) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.policy = policy or S3_POLICY

    @cached_property
    def _client(self) -> Any:
        return open_client(self.policy)

    def _name(self, key: str) -> str:
        check_key(key)
        return f"{self.prefix}/{key}" if self.prefix else key

    def uri(self, key: str) -> str:
        """``s3://bucket/prefix/key``."""
        return f"s3://{self.bucket}/{self._name(key)}"

    def path(self, key: str) -> None:
        """See `Store.path`."""

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """See `Store.writing`."""
        uri, name = self.uri(key), self._name(key)
        _require_room(uri)
        remove_abandoned(Path(tempfile.gettempdir()), f"{_UPLOAD_PREFIX}*")
        with tempfile.TemporaryDirectory(prefix=_UPLOAD_PREFIX) as folder:
            path = Path(folder) / name.rpartition("/")[2]
            with explained(path):
                yield path
            with s3_errors(f"{uri} cannot be written", self._client):
                self._client.upload_file(str(path), self.bucket, name, Config=_TRANSFER)

    def open(self, key: str) -> pa.NativeFile:
        """See `Store.open`."""
        return pa.PythonFile(self.open_ranges(key), mode="r")

    def open_ranges(self, key: str) -> S3File:
        """As `open`, for reads by several threads at a time."""
        return S3File(self, key)

    def read(self, key: str) -> bytes | None:
        """See `Store.read`."""
        return self.fetch(key, MAX_READ_BYTES)

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        head = self.head(key)
        return None if head is None else int(head["ContentLength"])

    def head(self, key: str) -> dict[str, Any] | None:
        """S3's description of an object, or None when there is none."""
        with s3_errors(f"{self.uri(key)} cannot be looked up", self._client):
            try:
                return dict(self._client.head_object(Bucket=self.bucket, Key=self._name(key)))
            except ClientError as error:
                if is_missing(error):
                    return None
                raise

    def fetch(self, key: str, limit: int, **request: str) -> bytes | None:
        """The body of a GetObject ``request`` (``Range``, ``IfMatch``), or None when there is no such object.

        boto3 retries requests; bodies that are cut short are retried here.
        Raises `StoreError` before reading when the body has more than ``limit`` bytes.
        """
        uri, name = self.uri(key), self._name(key)

        def attempt() -> bytes | None:
            with s3_errors(f"{uri} cannot be read", self._client):
                try:
                    response = self._client.get_object(Bucket=self.bucket, Key=name, **request)
                except ClientError as error:
                    if is_missing(error):
                        return None
                    raise
            with closing(response["Body"]) as body:
                length = response.get("ContentLength")
                if length is None:
                    raise AttemptFailed("a response without Content-Length, which may be truncated")
                if length > limit:
                    raise StoreError(f"{uri} is too long", found=f"{length:,} bytes", expected=f"at most {limit:,}")
                try:
                    return bytes(body.read())
                except (HTTPClientError, IncompleteReadError) as error:
                    raise AttemptFailed(type(error).__name__) from error

        try:
            return retry_call(attempt, uri, self.policy)
        except AttemptFailed as failure:
            reason = failure.reason
        raise StoreUnavailable(f"{uri} cannot be read", found=reason, remedy="try again later")

    def remember(self, file: StoredFile, written: os.stat_result) -> None:
        """Do nothing: what the server keeps is known by reading it."""

    def remembers(self, file: StoredFile) -> bool:
        """See `Store.remembers`."""
        return False

    def keys(self, prefix: str) -> Iterator[str]:
        """See `Store.keys`."""
        pages = self._client.get_paginator("list_objects_v2")
        skip = len(self.prefix) + 1 if self.prefix else 0
        with s3_errors(f"{self.uri(prefix)} cannot be listed", self._client):
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._name(prefix) + "/"):
                # names that end in / are folders that other programs "make"
                yield from (each["Key"][skip:] for each in page.get("Contents", ()) if not each["Key"].endswith("/"))

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        with s3_errors(f"{self.uri(key)} cannot be deleted", self._client):
            self._client.delete_object(Bucket=self.bucket, Key=self._name(key))


def open_s3_store(location: str, policy: RetryPolicy | None = None, what: str = "NEURALPILE_STORE") -> S3Store:
    """The store at ``s3://bucket/prefix``; raises `StoreError`, which names ``what``, when it is not of that form."""
    bucket, _, prefix = location.removeprefix("s3://").rstrip("/").partition("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket or not _is_prefix(prefix):
        raise StoreError(  # what stands there is not repeated: some put their keys in it
            f"{what} is not a location on S3",
            expected=f"s3://bucket/prefix without keys, port or options, the prefix of letters, digits and _.=+- "
            f"separated by /, at most {MAX_PREFIX_LENGTH} characters",
            remedy="credentials belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, another endpoint in "
            "AWS_ENDPOINT_URL",
        )
    return S3Store(bucket, prefix, policy)


def _is_prefix(text: str) -> bool:
    try:
        return not text or len(check_key(text)) <= MAX_PREFIX_LENGTH
    except StoreError:
        return False


def _require_room(uri: str) -> None:
    folder = Path(tempfile.gettempdir())
    free = free_bytes(folder)
    if free < _MIN_FREE_BYTES:
        raise DiskFull(
            f"not enough free disk at {folder} to write {uri}",
            found=f"{free:,} bytes available",
            expected=f"{_MIN_FREE_BYTES:,} bytes at least",
            remedy="free some space, or set TMPDIR to a larger disk, and run it again",
        )


class S3File(RangeFile):
    """The bytes of an object as a file for random access; raises `StoreError` when there is none.

    Each ``read`` is one ranged request. Where the object is replaced
    meanwhile, reading raises `StoreUnavailable` and never mixes the two.
    """

    def __init__(self, store: S3Store, key: str) -> None:
        self._store, self._key = store, key
        head = store.head(key)
        if head is None:
            raise self._missing()
        super().__init__(int(head["ContentLength"]))
        self._etag = str(head["ETag"])

    def fill(self, start: int, target: memoryview) -> int:
        """See `RangeFile.fill`; one request gives all bytes."""
        wanted = len(target)
        data = self._store.fetch(self._key, wanted, Range=f"bytes={start}-{start + wanted - 1}", IfMatch=self._etag)
        if data is None:
            raise self._missing()
        if len(data) != wanted:
            raise StoreUnavailable(
                f"{self._store.uri(self._key)} cannot be read", found=f"{len(data):,} bytes", expected=f"{wanted:,}"
            )
        target[:] = data
        return wanted

    def _missing(self) -> StoreError:
        uri = self._store.uri(self._key)
        return StoreError(f"{uri} is not in the store", remedy="materialize the asset that makes it")


def open_client(policy: RetryPolicy) -> Any:
    """A boto3 S3 client; raises `StoreError` when the ``AWS_*`` configuration is unusable."""
    config = Config(
        connect_timeout=policy.connect_timeout_s,
        read_timeout=policy.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": policy.attempts},
        max_pool_connections=32,
        tcp_keepalive=True,
        user_agent_extra=f"neuralpile-dagster/{version('neuralpile-dagster')}",
    )
    with s3_errors("the store on S3 cannot be opened"):
        try:
            # boto3 itself reads only AWS_DEFAULT_REGION; the other AWS tools read AWS_REGION first
            session = boto3.session.Session(
                region_name=os.environ.get("AWS_REGION") or None, botocore_session=_core_session()
            )
            client = session.client("s3", config=config)
        except ValueError:  # the text would repeat the URL, which may hold a password
            raise StoreError(
                "the store on S3 cannot be opened: its endpoint is not a URL",
                expected="https://host[:port] in AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, or neither",
            ) from None
    _warn_of_waits(client, _host(client), policy.attempts)
    return client


@cache
def _descriptions() -> Loader:
    """Descriptions of AWS's APIs, found and parsed once per process, not once per client (150 ms)."""
    loader: Loader = botocore.session.get_session().get_component("data_loader")
    return loader


def _core_session() -> botocore.session.Session:
    session = botocore.session.get_session()
    session.register_component("data_loader", _descriptions())
    return session


@contextmanager
def s3_errors(what: str, client: Any = None) -> Iterator[None]:
    """Turn what boto3 raises into `StoreError` and `StoreUnavailable`, beginning with ``what``."""
    try:
        yield
    except (BotoCoreError, Boto3Error, ClientError, ResponseParserError) as error:
        # boto3 hides the error of an upload behind one of its own
        cause = error.__context__ if isinstance(error, Boto3Error) and error.__context__ else error
        raise _translated(what, cause, client) from None


def is_missing(error: ClientError) -> bool:
    """Whether S3 says that there is no such key."""
    return _error_code(error) in ("404", "NoSuchKey", "NotFound")


def _error_code(error: ClientError) -> str:
    """S3's word for an error, e.g. ``NoSuchBucket``; where a reply has no body, the HTTP status."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return code if re.fullmatch(r"[A-Za-z0-9.]{1,64}", code) else str(_status(error))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _translated(what: str, error: BaseException, client: Any) -> StoreError:
    if isinstance(error, ClientError):
        code, status = _error_code(error), _status(error)
        found = f"{code} (HTTP {status}) to {error.operation_name}"
        if worth_retrying(status) or code in _TRANSIENT:
            return StoreUnavailable(what, found=found, remedy="try again later")
        return StoreError(what, found=found, remedy=_REMEDIES.get(code, ""))
    found = type(error).__name__
    if isinstance(error, _NETWORK_ERRORS):
        remedy = "try again later; check the network, and AWS_ENDPOINT_URL where the store is not Amazon's"
        return StoreUnavailable(what, found=found + _host(client), remedy=remedy)
    if "Credential" in found or "Profile" in found or "Token" in found:
        return StoreError(what, found=found, expected="credentials that boto3 finds", remedy=_CREDENTIALS)
    return StoreError(what, found=found)


def _host(client: Any) -> str:
    if client is None:
        return ""
    parts = urlsplit(client.meta.endpoint_url)
    return f" from {parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _warn_of_waits(client: Any, place: str, attempts: int) -> None:
    """Let a client that makes ``attempts`` of each request warn when that takes long; ``place`` names its host."""

    def begin(context: dict[str, Any], **_: Any) -> None:
        context[_BEGAN] = time.monotonic()

    # boto3 passes its own count as `attempts`
    def look(request_dict: dict[str, Any], response: Any, caught_exception: Any, **more: Any) -> None:
        reason = _reason(response, caught_exception)
        if reason and more["attempts"] < attempts:
            began = request_dict["context"].get(_BEGAN, time.monotonic())
            warn_of_retry(f"the store on S3{place}", reason, None, time.monotonic() - began)

    client.meta.events.register("before-call.s3", begin)
    client.meta.events.register_first("needs-retry.s3", look)


def _reason(response: Any, error: Exception | None) -> str:
    """Why a request failed, without anything of the response's text; empty when it did not."""
    if error is not None:
        return type(error).__name__
    status = response[0].status_code if response is not None else 0
    return f"HTTP status {status}" if worth_retrying(status) else ""
