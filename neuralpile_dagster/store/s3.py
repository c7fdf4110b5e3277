"""The store on S3, Amazon's or any that speaks its protocol (``AWS_ENDPOINT_URL``).

Objects are read by ranges: all bytes requested, of the object that was opened, or an error. `pyarrow.fs.S3FileSystem`
would do, but it takes a response that breaks off without having announced its length for whole (its buffer then ends
in whatever the memory held), and it needs its own credentials, endpoint, certificates and proxy. The client, and what
its errors mean, belong in `s3_client`.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

from neuralpile_dagster.errors import DiskFull, StoreError, StoreUnavailable
from neuralpile_dagster.files import explained, free_bytes, remove_abandoned
from neuralpile_dagster.net.range_file import RangeFile
from neuralpile_dagster.net.retry import AttemptFailed, RetryPolicy, retry_call
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import MAX_PREFIX_LENGTH, check_key
from neuralpile_dagster.store.s3_client import S3_POLICY, is_missing, open_client, s3_errors

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
