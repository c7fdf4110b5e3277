"""Parts of the doctor that need no servers: deadlines, tokens' permissions, redaction, versions, instance files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neuralpile_dagster.doctor import machine
from neuralpile_dagster.doctor.machine import broker, postgres
from neuralpile_dagster.doctor.probes import Finding, Probe, Redaction, examine, ok
from neuralpile_dagster.doctor.remote import judge
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.hub.huggingface.client import Secrets
from neuralpile_dagster.settings import Settings
from neuralpile_dagster_tests.servers.hf_hub_account import whoami


def test_a_probe_that_never_returns_is_given_up_and_the_next_one_runs() -> None:
    forever = threading.Event()

    def stuck() -> Finding:
        forever.wait()
        return ok("late")

    lines = {line.name: line for line in examine([[Probe("stuck", stuck), Probe("next", lambda: ok("fine"))]], 0.2)}
    forever.set()
    assert (lines["stuck"].finding.status, lines["stuck"].running) == ("failed", True)
    assert "no result within 0.2 s" in lines["stuck"].finding.found
    assert (lines["next"].finding, lines["next"].running) == (ok("fine"), False)


def test_a_line_appears_as_its_probe_ends_whatever_else_is_running() -> None:
    released = threading.Event()

    def slow() -> Finding:
        released.wait(60)
        return ok("slow")

    lines = examine([[Probe("slow", slow)], [Probe("quick", lambda: ok("quick"))]])
    assert next(lines).name == "quick"
    released.set()
    assert next(lines).name == "slow"


def test_errors_become_failed_lines_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_SecretSecret")

    def ours() -> Finding:
        raise ConfigurationError("no good", found="hf_SecretSecret", remedy="drop hf_SecretSecret")

    def unexpected() -> Finding:
        raise ZeroDivisionError("by hf_SecretSecret")

    first, second = (line.finding for line in examine([[Probe("ours", ours), Probe("unexpected", unexpected)]]))
    assert first == Finding("failed", "no good; found: ***", "drop ***")
    assert (second.status, second.found) == ("failed", "ZeroDivisionError: by ***")


def test_a_group_may_decide_its_next_probe_by_what_the_last_one_found() -> None:
    found: list[int] = []

    def count() -> Finding:
        found.append(2)
        return ok("2")

    def group() -> Iterator[Probe]:
        yield Probe("count", count)
        for number in range(found[0]):
            yield Probe(f"each {number}", lambda: ok(""))

    assert [line.name for line in examine([group()])] == ["count", "each 0", "each 1"]


FINE = "fineGrained"


@pytest.mark.parametrize(
    ("account", "status"),
    [
        (whoami("lab"), "ok"),
        (whoami("lab", role="read"), "failed"),
        (whoami("tester", {"lab": "admin"}), "ok"),
        (whoami("tester", {"lab": "contributor"}), "ok"),
        (whoami("tester", {"lab": "read"}), "failed"),
        (whoami("tester", {"lab": "write"}, role="read"), "failed"),
        (whoami("tester", {"other": "write"}), "failed"),
        (whoami("lab", role=FINE, scoped={"user lab": ["repo.content.read", "repo.write"]}), "ok"),
        (whoami("tester", {"lab": "write"}, FINE, {"org lab": ["repo.write"]}), "ok"),
        (whoami("tester", {"lab": "write"}, FINE, {"user tester": ["repo.write"]}), "failed"),
        (whoami("lab", role=FINE, scoped={"user lab": ["repo.content.read", "discussion.write"]}), "failed"),
        (whoami("lab", role=FINE, scoped={}), "failed"),
        (whoami("lab", role=FINE, scoped={"dataset lab/iurilli": ["repo.write"]}), "warning"),
        (whoami("lab", role=FINE, scoped={"dataset other/iurilli": ["repo.write"]}), "failed"),
        (whoami("lab", role=FINE, scoped={"user lab": ["repo.of.tomorrow"]}), "warning"),
        ({"type": "user", "name": "lab", "orgs": []}, "warning"),  # other servers do not say what a token may do
    ],
)
def test_a_token_is_judged_by_its_role_its_scopes_and_its_owners_role(account: dict[str, Any], status: str) -> None:
    finding = judge(account, "lab", "https://hub.example")
    assert finding.status == status, finding
    assert (finding.remedy == "") == (status == "ok")


def test_redaction_removes_named_values_passwords_in_urls_and_queries() -> None:
    redact = Redaction({"A_TOKEN": "abcdefgh", "BROKER": "redis://:p%40ssword@host/0", "EMPTY_KEY": "", "B_KEY": "on"})
    assert redact("abcdefgh p%40ssword p@ssword on") == "*** *** *** on"
    assert redact("https://user:other@host/path?X-Amz-Signature=1 x") == "https://***@host/path?... x"


def test_a_signed_url_is_cut_at_its_query_in_the_report_and_in_errors_of_the_hub() -> None:
    signed = "https://host/a?X-Amz-Signature=1 and http://host/b c"
    assert Redaction({})(signed) == Secrets(None).redact(signed) == "https://host/a?... and http://host/b c"


def test_versions_outside_their_bounds_and_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.versions().status == "ok"
    wanted = ["numpy<1", "no-such-package>=2", "click", 'never-installed; extra == "cluster"']
    monkeypatch.setattr(machine, "requires", lambda name: wanted)
    finding = machine.versions()
    assert finding.status == "failed"
    assert "numpy<1 (" in finding.found
    assert "no-such-package>=2 (not installed)" in finding.found
    assert "click" not in finding.found
    assert "never-installed" not in finding.found


def settings_of(home: Path) -> Settings:
    return Settings(home=home, store=str(home / "store"))


def test_a_home_that_cannot_be_written_is_an_error_and_nothing_is_left_in_one_that_can(tmp_path: Path) -> None:
    assert machine.home(settings_of(tmp_path / "not" / "made")).status == "ok"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    (line,) = examine([[Probe("home", lambda: machine.home(settings_of(tmp_path / "file" / "home")))]])
    assert line.finding.status == "failed"
    assert "cannot be written" in line.finding.found


def test_little_free_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda path: 1_000_000)
    assert machine.home(settings_of(tmp_path)).status == "warning"


UNIFIED = "storage: {postgres: {postgres_url: 'postgresql+psycopg2://me:opensesame@127.0.0.1:9/pile'}}\n"
SEPARATE = """\
run_storage:
  config: {postgres_db: {hostname: 127.0.0.1, port: 9, username: me, password: opensesame, db_name: pile}}
"""


@pytest.mark.parametrize("text", [UNIFIED, SEPARATE])
def test_a_database_is_found_in_both_forms_of_instance_file_and_its_password_is_not_shown(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "dagster.yaml").write_text(text)
    finding = postgres(settings_of(tmp_path))
    assert finding.status == "failed"
    assert finding.found.startswith("127.0.0.1:9/pile cannot be reached: ")
    assert "opensesame" not in finding.found


def test_invalid_urls_of_database_and_broker_are_not_repeated(tmp_path: Path) -> None:
    url = "://me:open/sesame@127.0.0.1:9/0"
    storage, launcher = f"{{postgres_url: 'postgresql{url}'}}", f"{{broker: 'redis{url}'}}"
    (tmp_path / "dagster.yaml").write_text(
        f"run_storage: {{config: {storage}}}\nrun_launcher: {{config: {launcher}}}\n"
    )
    for look in (postgres, broker):
        (line,) = examine([[Probe("it", lambda look=look: look(settings_of(tmp_path)))]])
        assert line.finding.status == "failed"
        assert "is invalid" in line.finding.found
        assert "sesame" not in line.finding.found + line.finding.remedy


def test_an_instance_file_that_is_not_yaml_is_named_without_its_text(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("a: 1\nb: [opensesame: {\n")
    with pytest.raises(ConfigurationError, match=r"dagster\.yaml cannot be read; found: no YAML in line") as error:
        postgres(settings_of(tmp_path))
    assert "opensesame" not in str(error.value)


@pytest.mark.parametrize("look", [postgres, broker])
def test_an_instance_file_that_names_a_variable_which_is_not_set_says_so(
    tmp_path: Path, look: Callable[[Settings], Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOME_VALUE", raising=False)
    named = "{env: SOME_VALUE}"
    (tmp_path / "dagster.yaml").write_text(
        f"run_storage: {{config: {{postgres_url: {named}}}}}\nrun_launcher: {{config: {{broker: {named}}}}}\n"
    )
    with pytest.raises(ConfigurationError, match="SOME_VALUE is not set"):
        look(settings_of(tmp_path))


@pytest.mark.parametrize(
    "text", ["", "7", "run_storage: 7", "run_launcher: {config: 7}", "telemetry: {enabled: false}"]
)
def test_an_instance_file_without_database_and_broker_needs_neither(tmp_path: Path, text: str) -> None:
    (tmp_path / "dagster.yaml").write_text(text)
    assert postgres(settings_of(tmp_path)).status == broker(settings_of(tmp_path)).status == "not needed"
