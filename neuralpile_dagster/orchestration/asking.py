"""What sensors asked for already: the same thing is asked for again only when its run died, and not for ever."""

from __future__ import annotations

import dagster as dg

TRIES = 3
"""Runs for the same thing with the same inputs, when runs die."""
_ASKED = "neuralpile/asked"


def not_asked_before(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.RunRequest | None:
    """The request, unless a run for it is under way or it was tried `TRIES` times: a killed run leaves no failure."""
    earlier = instance.get_run_records(dg.RunsFilter(tags={_ASKED: str(request.run_key)}))
    if len(earlier) >= TRIES or not all(record.dagster_run.is_finished for record in earlier):
        return None
    tags = {**request.tags, _ASKED: str(request.run_key)}
    return request.with_replaced_attrs(run_key=f"{request.run_key}-{len(earlier)}", tags=tags)
