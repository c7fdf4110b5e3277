"""Objects on S3 read by ranges: every byte asked for, of the object that was opened, or an error.

`pyarrow.fs.S3FileSystem` would do, but it takes a reply that breaks off
without having announced its length for whole (its buffer then ends in
whatever the memory held), and it needs its own credentials, endpoint,
certificates and proxy.
"""

from __future__ import annotations

import io
import random
import time
from contextlib import closing
from typing import Any

from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

from neuralpile_dagster.errors import StoreError, StoreUnavailable
from neuralpile_dagster.progress import tell
from neuralpile_dagster.store.s3.client import S3Limits, is_missing, s3_errors

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 20.0


class S3Object:
    """One object on S3: where it is, and what is needed to read it."""

    def __init__(self, client: Any, bucket: str, name: str, limits: S3Limits) -> None:
        self.client = client
        self.bucket = bucket
        self.name = name
        self.limits = limits
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

        boto3 repeats requests; that it got all of the body is seen to here.
        Raises `StoreError` before reading when the body has more than ``limit`` bytes.
        """
        trouble, began = "", time.monotonic()
        for attempt in range(self.limits.attempts):
            if attempt:
                pause = random.random() * min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S)
                tell(self.uri, trouble, pause, time.monotonic() - began)
                time.sleep(pause)
            with s3_errors(f"{self.uri} cannot be read", self.client):
                try:
                    reply = self.client.get_object(Bucket=self.bucket, Key=self.name, **request)
                except ClientError as error:
                    if is_missing(error):
                        return None
                    raise
            with closing(reply["Body"]) as body:
                length = reply.get("ContentLength")
                if length is not None and length > limit:
                    raise StoreError(
                        f"{self.uri} is too long", found=f"{length:,} bytes", expected=f"at most {limit:,}"
                    )
                if length is None:
                    trouble = "a reply without its length, which may be cut short"
                    continue
                try:
                    return bytes(body.read())
                except (HTTPClientError, IncompleteReadError) as error:
                    trouble = type(error).__name__
        raise StoreUnavailable(f"{self.uri} cannot be read", found=trouble, remedy="try again later")


class S3File:
    """The bytes of an `S3Object` as a file for random access; raises `StoreError` when there is none.

    Each ``read`` is one ranged request. Where the object is replaced
    meanwhile, reading raises `StoreUnavailable` and never mixes the two.
    """

    def __init__(self, source: S3Object) -> None:
        self._object = source
        head = source.head()
        if head is None:
            raise missing(source)
        self._size = int(head["ContentLength"])
        self._etag = str(head["ETag"])
        self._at = 0
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes (all the rest when negative), fewer only at the end."""
        stop = self._size if size is None or size < 0 else min(self._at + size, self._size)
        wanted = stop - self._at
        if wanted <= 0:
            return b""
        data = self._object.fetch(wanted, Range=f"bytes={self._at}-{stop - 1}", IfMatch=self._etag)
        if data is None:
            raise missing(self._object)
        if len(data) != wanted:
            raise StoreUnavailable(
                f"{self._object.uri} cannot be read", found=f"{len(data):,} bytes", expected=f"{wanted:,}"
            )
        self._at = stop
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.IOBase.seek`."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """See `io.IOBase.tell`."""
        return self._at

    def close(self) -> None:
        """Nothing is held open."""
        self.closed = True

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """False."""
        return False


def missing(source: S3Object) -> StoreError:
    """The error for an object that is not there."""
    return StoreError(f"{source.uri} is not in the store", remedy="materialize the asset that makes it")
