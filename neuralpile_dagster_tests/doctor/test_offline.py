"""The doctor where nothing answers: every line is a result, no secret is shown, and the process ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from neuralpile_dagster_tests.fixtures.visit import NETWORK, ROOT, Visit, doctor, dripping, refusing, silent

TOKEN = "hf_SecretOfTheHubSecretOfTheHub"
SECRETS = {
    "HF_TOKEN": TOKEN,
    "DANDI_API_KEY": "secret-of-dandi-0123456789",
    "AWS_SECRET_ACCESS_KEY": "secret-of-aws-0123456789",
    "AWS_SESSION_TOKEN": "secret-of-the-aws-session-0123456789",
    "DAGSTER_PG_PASSWORD": "secret-of-postgres",
}
BROKER_PASSWORD = "secret%2Dof%2Dredis"
URL_PASSWORD = "secret-in-a-url"
UNTRIED = {"archive reading", "archive digests"}
EVERYTHING = (NETWORK - UNTRIED) | {"hub", "store", "postgres", "broker"}


def cluster_environment(port: int) -> dict[str, str]:
    """Everything that can be configured, at one port of this machine, with a secret wherever one fits."""
    url = f"http://user:{URL_PASSWORD}@127.0.0.1:{port}"
    redis = f"redis://:{BROKER_PASSWORD}@127.0.0.1:{port}"
    return {
        **SECRETS,
        "NEURALPILE_HUB": "hf",
        "NEURALPILE_NAMESPACE": "lab",
        "NEURALPILE_STORE": "s3://bucket/prefix",
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "DANDI_API_URL": f"{url}/api",
        "FIGSHARE_API_URL": f"{url}/v2",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "an-id",
        "AWS_EC2_METADATA_DISABLED": "true",
        "DAGSTER_PG_HOST": "127.0.0.1",
        "DAGSTER_PG_PORT": str(port),
        "DAGSTER_PG_DB": "neuralpile",
        "DAGSTER_PG_USERNAME": "neuralpile",
        "DAGSTER_CELERY_BROKER_URL": f"{redis}/0",
        "DAGSTER_CELERY_BACKEND_URL": f"{redis}/1",
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the instance file of a cluster."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(ROOT / "deploy" / "celery" / "dagster.yaml", folder)
    return folder


@pytest.fixture(params=[refusing, silent, dripping], ids=lambda place: place.__name__)
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    place: Callable[[], AbstractContextManager[int]] = request.param
    with place() as number:
        yield number


def require_no_secrets(visit: Visit) -> None:
    for secret in (*SECRETS.values(), BROKER_PASSWORD, "secret-of-redis", URL_PASSWORD):
        assert secret not in visit.out + visit.err


def test_every_server_that_does_not_answer_is_a_failed_line_with_a_remedy_and_the_process_ends(
    home: Path, port: int
) -> None:
    visit = doctor(home, "--json", environment=cluster_environment(port))
    assert visit.code == 1
    assert "Traceback" not in visit.out + visit.err
    lines = visit.lines
    assert {name for name, line in lines.items() if line["status"] == "failed"} == EVERYTHING
    assert all(lines[name]["remedy"] for name in EVERYTHING)
    assert not any("defect" in line["remedy"] for line in lines.values())
    require_no_secrets(visit)


def test_the_report_in_words_names_what_failed_and_shows_no_secret(home: Path) -> None:
    with refusing() as port:
        visit = doctor(home, environment=cluster_environment(port))
    assert visit.code == 1
    assert "Traceback" not in visit.out + visit.err
    last = visit.out.splitlines()[-1]
    assert last.startswith("failed: ")
    assert set(last.removeprefix("failed: ").split(", ")) == EVERYTHING
    assert "what to do: " in visit.out
    require_no_secrets(visit)


def test_a_new_users_machine_without_network_fails_the_lines_of_the_archives_alone(tmp_path: Path) -> None:
    with refusing() as port:
        url = f"http://127.0.0.1:{port}"
        places = {"DANDI_API_URL": f"{url}/api", "FIGSHARE_API_URL": f"{url}/v2", "HF_TOKEN": TOKEN}
        visit = doctor(tmp_path / "home", "--json", environment=places)
    assert visit.code == 1
    statuses = visit.statuses
    assert {name for name, status in statuses.items() if status == "failed"} == {"archive listing", "figshare"}
    assert {name for name, status in statuses.items() if status == "not tried"} == UNTRIED
    assert {name for name, status in statuses.items() if status == "not needed"} == {
        "plugins",
        "hub",
        "postgres",
        "broker",
    }
    assert "HF_TOKEN is set" in visit.lines["hub"]["found"]
    assert list(tmp_path.iterdir()) == []


def test_the_json_report_is_one_document_with_the_fields_of_every_line(tmp_path: Path) -> None:
    visit = doctor(tmp_path / "home", "--json", environment={"NEURALPILE_ARCHIVE": "sample"})
    assert (visit.code, visit.err) == (0, "")
    document = json.loads(visit.out)
    assert document["ok"] is True
    for line in document["lines"]:
        assert list(line) == ["name", "status", "found", "remedy", "seconds"]
        assert line["status"] in ("ok", "failed", "warning", "not needed")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("NEURALPILE_HUB", "nowhere"), ("NEURALPILE_BIN_WIDTH", "wide"), ("NEURALPILE_HUB", "hf")],
)
def test_settings_that_are_invalid_are_a_line_too(tmp_path: Path, variable: str, value: str) -> None:
    visit = doctor(tmp_path / "home", "--json", environment={variable: value})
    assert visit.code == 1
    assert visit.statuses == {"versions": "ok", "imports": "ok", "settings": "failed"}


@pytest.mark.parametrize("package", ["h5py", "huggingface_hub"])
def test_a_package_that_does_not_import_is_named_and_every_line_still_appears(tmp_path: Path, package: str) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / f"{package}.py").write_text(f"raise ImportError('a shared library is missing', name={package!r})")
    path = {"PYTHONPATH": f"{broken}:{ROOT}"}
    with refusing() as port:
        visit = doctor(tmp_path / "home", "--json", environment={**cluster_environment(port), **path})
    assert (visit.code, visit.err) == (1, "")
    assert visit.lines["imports"]["found"].endswith("cannot be imported: a shared library is missing")
    assert set(visit.lines) >= EVERYTHING
    assert not any("defect" in line["remedy"] for line in visit.lines.values())


def test_keys_in_the_stores_location_are_not_shown(tmp_path: Path) -> None:
    for as_json in ((), ("--json",)):
        environment = {"NEURALPILE_ARCHIVE": "sample", "NEURALPILE_STORE": "s3://an-id:a/secret/key@bucket/prefix"}
        visit = doctor(tmp_path / "home", *as_json, environment=environment)
        assert visit.code == 1
        assert "NEURALPILE_STORE is not a location on S3" in visit.out
        assert "secret" not in visit.out + visit.err


def test_a_catalog_that_is_invalid_is_a_line_too(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text("datasets: 7")
    visit = doctor(tmp_path, "--json")
    assert visit.code == 1
    assert str(tmp_path / "catalog.yaml") in visit.lines["settings"]["found"]
