"""A failed run reaches people by webhook and mail, where the environment says so; no secret is shown anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import dagster as dg
import pytest

from neuralpile_dagster.errors import ConfigurationError, TransientError
from neuralpile_dagster.net.alerts import MAIL, WEBHOOK, send_alert
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.code_location import build_definitions
from neuralpile_dagster.orchestration.launch import PART_OF
from neuralpile_dagster.orchestration.sensors import alert_sensor
from neuralpile_dagster_tests.fixtures.house import MICE, House
from neuralpile_dagster_tests.fixtures.kept import PastRun, last_run
from neuralpile_dagster_tests.servers.alerts import mail_server, webhook

NewHouse = Callable[..., House]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (WEBHOOK, MAIL):
        monkeypatch.delenv(variable, raising=False)


def report(made: House, result: dg.ExecuteInProcessResult | PastRun) -> object:
    """What the sensor does about a failed run."""
    failure = next(event for event in result.all_events if event.event_type_value == "PIPELINE_FAILURE")
    context = dg.build_run_status_sensor_context(
        "alert_on_failure", failure, made.instance, result.dagster_run
    ).for_run_failure()
    return alert_sensor(made.settings)(context)


def test_a_failed_run_is_posted_to_the_webhook_with_its_reason(
    broken_house: NewHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = broken_house()
    result = last_run(made)
    with webhook() as received:
        monkeypatch.setenv(WEBHOOK, received.address)
        report(made, result)
    ((text,),) = [body.values() for body in received.bodies]
    assert text.startswith(
        "*tiny_mice/spike_counts, tiny_mice/spike_trains failed*\n1 of 3 sessions of tiny-mice failed"
    )
    assert text.endswith(f"run {result.run_id}")


def test_a_failed_run_is_mailed_to_all_recipients(new_house: NewHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    made = new_house()
    result = made.run(names.hub_dataset_key(MICE))
    with mail_server() as received:
        monkeypatch.setenv(MAIL, f"smtp://{received.address}/?from=pile@lab.org&to=me@lab.org,you@lab.org")
        report(made, result)
    (mail,) = received.bodies
    assert "Subject: [neuralpile] tiny_mice/hub_dataset failed" in mail
    assert "To: me@lab.org,you@lab.org" in mail
    assert "tiny-mice has no manifest yet" in mail


def test_a_run_that_a_job_started_is_left_to_the_job(listed_house: NewHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    made = listed_house()
    job = build_definitions(made.settings, made.datasets).get_job_def("build_tiny_mice")
    shutil.rmtree(made.archive)
    job.execute_in_process(instance=made.instance, raise_on_error=False)
    part = next(run for run in made.instance.get_runs() if PART_OF in run.tags and run.is_failure)
    context = dg.build_run_status_sensor_context(
        "alert_on_failure",
        dg.DagsterEvent("PIPELINE_FAILURE", part.job_name),
        made.instance,
        part,
    ).for_run_failure()
    with webhook() as received:
        monkeypatch.setenv(WEBHOOK, received.address)
        said = alert_sensor(made.settings)(context)
    assert isinstance(said, dg.SkipReason)
    assert received.bodies == []


def test_alerts_are_on_only_where_there_is_somewhere_to_send_them(
    new_house: NewHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = new_house().settings
    assert alert_sensor(settings).default_status == dg.DefaultSensorStatus.STOPPED
    monkeypatch.setenv(WEBHOOK, "https://hooks.example.org/secret")
    assert alert_sensor(settings).default_status == dg.DefaultSensorStatus.RUNNING


def test_a_busy_webhook_is_asked_again_and_a_refusing_one_named_without_its_secret() -> None:
    with webhook(503, 429) as received:
        assert send_alert("a", "b", {WEBHOOK: received.address}) == ["webhook"]
    assert received.bodies == [{"text": "*a*\nb"}]
    with webhook(403) as received, pytest.raises(TransientError, match="HTTP status 403") as refused:
        send_alert("a", "b", {WEBHOOK: received.address})
    with pytest.raises(TransientError) as gone:
        send_alert("a", "b", {WEBHOOK: received.address, MAIL: "smtp://me:pass@127.0.0.1:1/?from=a@b&to=c@d"})
    for error in (refused, gone):
        assert "secret-token" not in str(error.value)
        assert error.value.__suppress_context__ or error.value.__context__ is None


def test_a_webhook_that_fails_does_not_keep_the_mail_from_going() -> None:
    with webhook(403) as hook, mail_server() as mail, pytest.raises(TransientError, match="webhook"):
        send_alert("a", "b", {WEBHOOK: hook.address, MAIL: f"smtp://{mail.address}/?from=a@b.org&to=c@d.org"})
    assert len(mail.bodies) == 1


def test_a_password_is_not_sent_to_a_mail_server_without_encryption() -> None:
    with mail_server() as mail, pytest.raises(ConfigurationError, match="offers no encryption") as error:
        send_alert("a", "b", {MAIL: f"smtp://me:hunter2@{mail.address}/?from=a@b.org&to=c@d.org"})
    assert "hunter2" not in str(error.value)
    assert mail.bodies == []


@pytest.mark.parametrize("address", ["hunter2", "ftp://host/hunter2", "https:///hunter2", "https://host:hunter2/"])
def test_an_invalid_address_is_refused_by_the_name_of_its_variable(address: str) -> None:
    for variable in (WEBHOOK, MAIL):
        with pytest.raises(ConfigurationError, match=f"{variable} is invalid") as error:
            send_alert("a", "b", {variable: address})
        assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("query", ["", "?from=a@b.org", "?to=a@b.org"])
def test_a_mail_needs_a_sender_and_a_recipient(query: str) -> None:
    with pytest.raises(ConfigurationError, match="no sender or no recipient"):
        send_alert("s", "t", {MAIL: f"smtp://127.0.0.1:9/{query}"})
