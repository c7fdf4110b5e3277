"""Read objects on S3 by ranges: all bytes requested, of the object that was opened, or an error.

`pyarrow.fs.S3FileSystem` would do, but it takes a response that breaks off
without having announced its length for whole (its buffer then ends in
whatever the memory held), and it needs its own credentials, endpoint,
certificates and proxy.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

from neuralpile_dagster.errors import StoreError, StoreUnavailable
from neuralpile_dagster.net.range_file import RangeFile
from neuralpile_dagster.net.retry import AttemptFailed, RetryPolicy, retry_call
from neuralpile_dagster.store.s3.client import is_missing, s3_errors


class S3Object:
    """One object on S3: where it is, and what is needed to read it."""

    def __init__(self, client: Any, bucket: str, name: str, policy: RetryPolicy) -> None:
        self.client = client
        self.bucket = bucket
        self.name = name
        self.policy = policy
        self.uri = f"s3://{bucket}/{name}"

    def head(self) -> dict[str, Any] | None:
        """S3's description of the object, or None when there is none."""
        with s3_errors(f"{self.uri} cannot be looked up", self.client):
            try:
                return dict(self.client.head_object(Bucket=self.bucket, Key=self.name))
            except ClientError as error:
                if is_missing(error):
                    return None
                raise

    def fetch(self, limit: int, **request: str) -> bytes | None:
        """The body of a GetObject ``request`` (``Range``, ``IfMatch``), or None when there is no such object.

        boto3 retries requests; bodies that are cut short are retried here.
        Raises `StoreError` before reading when the body has more than ``limit`` bytes.
        """

        def attempt() -> bytes | None:
            with s3_errors(f"{self.uri} cannot be read", self.client):
                try:
                    response = self.client.get_object(Bucket=self.bucket, Key=self.name, **request)
                except ClientError as error:
                    if is_missing(error):
                        return None
                    raise
            with closing(response["Body"]) as body:
                length = response.get("ContentLength")
                if length is None:
                    raise AttemptFailed("a response without Content-Length, which may be truncated")
                if length > limit:
                    raise StoreError(
                        f"{self.uri} is too long", found=f"{length:,} bytes", expected=f"at most {limit:,}"
                    )
                try:
                    return bytes(body.read())
                except (HTTPClientError, IncompleteReadError) as error:
                    raise AttemptFailed(type(error).__name__) from error

        try:
            return retry_call(attempt, self.uri, self.policy)
        except AttemptFailed as failure:
            reason = failure.reason
        raise StoreUnavailable(f"{self.uri} cannot be read", found=reason, remedy="try again later")


class S3File(RangeFile):
    """The bytes of an `S3Object` as a file for random access; raises `StoreError` when there is none.

    Each ``read`` is one ranged request. Where the object is replaced
    meanwhile, reading raises `StoreUnavailable` and never mixes the two.
    """

    def __init__(self, source: S3Object) -> None:
        head = source.head()
        if head is None:
            raise missing(source)
        super().__init__(int(head["ContentLength"]))
        self._object = source
        self._etag = str(head["ETag"])

    def fill(self, start: int, target: memoryview) -> int:
        """See `RangeFile.fill`; one request gives all bytes."""
        wanted = len(target)
        data = self._object.fetch(wanted, Range=f"bytes={start}-{start + wanted - 1}", IfMatch=self._etag)
        if data is None:
            raise missing(self._object)
        if len(data) != wanted:
            raise StoreUnavailable(
                f"{self._object.uri} cannot be read", found=f"{len(data):,} bytes", expected=f"{wanted:,}"
            )
        target[:] = data
        return wanted


def missing(source: S3Object) -> StoreError:
    """The error for an object that is not there."""
    return StoreError(f"{source.uri} is not in the store", remedy="materialize the asset that makes it")
