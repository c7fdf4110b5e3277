"""How a batch fails at its end: with the first reasons in the message, and all of them behind it."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from neuralpile_dagster.orchestration.metadata import counted

REASONS_SHOWN = 3
"""Things whose reasons are in the message of a batch that failed; the run's log has all."""


def batch_failure(what: str, failed: Mapping[str, str], wanted: int) -> dg.Failure:
    """The failure of a batch of ``wanted`` things, which ``what`` names; ``failed`` are the reasons by partition."""
    reasons = [f"{key}: {reason}" for key, reason in failed.items()]
    more = len(reasons) - REASONS_SHOWN
    return dg.Failure(
        f"{len(reasons)} of {wanted} {what} failed"
        + ("; the others are done. " if len(reasons) < wanted else ". ")
        + " | ".join(reasons[:REASONS_SHOWN])
        + (f" | and {more} more, in the run's log" if more > 0 else ""),
        metadata={"failed_partitions": dg.MetadataValue.md(counted(failed))},
        allow_retries=False,
    )
