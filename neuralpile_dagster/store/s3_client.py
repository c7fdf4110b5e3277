"""The S3 client: configured the standard way of AWS's tools, with timeouts and retries, and its errors translated.

Credentials, region, endpoint, certificates and proxies come from where boto3
looks for them (``AWS_*`` variables, profile, the machine's role). What an
error says is made of fixed words and S3's error codes: a response or a URL
may contain secrets.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import boto3.session
import botocore.session
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError

from neuralpile_dagster.errors import StoreError, StoreUnavailable
from neuralpile_dagster.net.retry import RetryPolicy, worth_retrying
from neuralpile_dagster.progress import warn_of_retry

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
