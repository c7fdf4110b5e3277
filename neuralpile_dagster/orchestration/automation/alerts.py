"""Sensor ``alert_on_failure``: tells people about runs that failed, where the environment names a webhook or mailbox.

How an alert is sent belongs in `net.alerts`.
"""

from __future__ import annotations

import dagster as dg

from neuralpile_dagster.net.alerts import is_configured, send_alert
from neuralpile_dagster.orchestration.jobs import PART_OF
from neuralpile_dagster.settings import Settings

MOST_CHARACTERS = 2000
"""Of a reason; chats cut longer texts, and the run's log has all of it."""


def alert_sensor(settings: Settings) -> dg.SensorDefinition:
    """Sensor that sends an alert for each failed run; it is on where the environment says where to send them."""
    status = dg.DefaultSensorStatus.RUNNING if is_configured() else dg.DefaultSensorStatus.STOPPED

    @dg.run_failure_sensor(
        name="alert_on_failure",
        minimum_interval_seconds=30,
        monitor_all_code_locations=True,  # runs of the command line have no code location
        default_status=status,
        description="Sends the reason of each failed run to NEURALPILE_ALERT_WEBHOOK (of Slack, or any that takes JSON "
        "with a text) and NEURALPILE_ALERT_MAIL (smtp://user:password@host:587/?from=...&to=...). It is on from "
        "the start where one of them is set.",
    )
    def alert_on_failure(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        if PART_OF in run.tags:
            return dg.SkipReason(f"The job that started the run {run.run_id} reports it.")
        if not is_configured():
            return dg.SkipReason("Neither NEURALPILE_ALERT_WEBHOOK nor NEURALPILE_ALERT_MAIL is set.")
        where = send_alert(f"{what_ran(run)} failed", _text(context, settings))
        context.log.info(f"sent to {' and '.join(where)}")
        return None

    return alert_on_failure


def what_ran(run: dg.DagsterRun) -> str:
    """Name of the job, or the assets of a run."""
    if not run.asset_selection:
        return run.job_name
    return ", ".join(sorted(key.to_user_string() for key in run.asset_selection))


def _text(context: dg.RunFailureSensorContext, settings: Settings) -> str:
    # with psutil, which the code location does not need
    from neuralpile_dagster.orchestration.serving import address_of

    reasons = []
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        description = data.user_failure_data.description if data.user_failure_data else None
        reasons.append(description or (data.error.message.strip() if data.error else ""))
    reason = " | ".join(filter(None, reasons)) or context.failure_event.message or "see its log"
    if len(reason) > MOST_CHARACTERS:
        reason = f"{reason[:MOST_CHARACTERS]} ..."
    address = address_of(settings.home)
    run_id = context.dagster_run.run_id
    return f"{reason}\n{f'{address}/runs/{run_id}' if address else f'run {run_id}'}"
