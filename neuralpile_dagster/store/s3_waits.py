"""Tells that S3 is waited for: boto3 tries again by itself, without a word."""

from __future__ import annotations

import time
from typing import Any

from neuralpile_dagster.waiting import tell

_BEGAN = "neuralpile_began"


def tell_waits(client: Any, place: str, tries: int) -> None:
    """Let a client that tries each request ``tries`` times say when that takes long; ``place`` names its host."""

    def begin(context: dict[str, Any], **_: Any) -> None:
        context[_BEGAN] = time.monotonic()

    def look(attempts: int, request_dict: dict[str, Any], response: Any, caught_exception: Any, **_: Any) -> None:
        trouble = _trouble(response, caught_exception)
        if trouble and attempts < tries:
            began = request_dict["context"].get(_BEGAN, time.monotonic())
            tell(f"the store on S3{place}", trouble, None, time.monotonic() - began)

    client.meta.events.register("before-call.s3", begin)
    client.meta.events.register_first("needs-retry.s3", look)


def _trouble(response: Any, error: Exception | None) -> str:
    """What went wrong, in words that hold nothing of a reply; empty when nothing did."""
    if error is not None:
        return type(error).__name__
    status = response[0].status_code if response is not None else 0
    return f"HTTP status {status}" if status >= 500 or status in (408, 429) else ""
