"""The instance files in deploy/, loaded as Dagster loads them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from dagster._core.instance.ref import InstanceRef

from neuralpile_dagster.settings import DEFAULT_CONNECTIONS
from neuralpile_dagster_tests.fixtures.commands import run
from neuralpile_dagster_tests.servers.s3 import S3Server

DEPLOY = Path(__file__).parents[2] / "deploy"
README = DEPLOY.parent / "README.md"
POSTGRES = {
    "DAGSTER_PG_HOST": "127.0.0.1",
    "DAGSTER_PG_PORT": "1",
    "DAGSTER_PG_USERNAME": "neuralpile",
    "DAGSTER_PG_PASSWORD": "a-password",
    "DAGSTER_PG_DB": "neuralpile",
    "NEURALPILE_LOGS_BUCKET": "logs",
    "NEURALPILE_LOGS_FOLDER": "/nowhere",
}
SETTINGS = ("NEURALPILE_", "HF_", "DANDI_", "FIGSHARE_")
FILES = sorted(path.relative_to(DEPLOY).as_posix() for path in DEPLOY.glob("*/dagster.yaml"))


def load(name: str, monkeypatch: pytest.MonkeyPatch, **environment: str) -> InstanceRef:
    """The instance of a file in deploy/, without connecting to its database (test_workers does)."""
    for variable, value in {**POSTGRES, **environment}.items():
        monkeypatch.setenv(variable, value)
    return InstanceRef.from_dir(str((DEPLOY / name).parent))


@pytest.mark.parametrize("name", FILES)
def test_no_instance_file_holds_a_value_that_belongs_in_the_environment(name: str):
    document = yaml.safe_load((DEPLOY / name).read_text())
    database = document["run_storage"]["config"]["postgres_db"]
    assert database.pop("scheme") == "postgresql+psycopg2"
    assert all(list(value) == ["env"] for value in database.values())
    code = re.sub(r"#.*", "", (DEPLOY / name).read_text())
    assert not re.search(r"://|AKIA|password: *[^{\s]", code)


def test_all_instances_keep_everything_in_postgres():
    documents = [yaml.safe_load((DEPLOY / name).read_text()) for name in FILES]
    kinds = ("run_storage", "event_log_storage", "schedule_storage")
    storages = [[document[kind] for kind in kinds] for document in documents]
    assert len(FILES) == 3
    assert storages[0] == storages[1] == storages[2]
    assert all("Postgres" in storage["class"] for storage in storages[0])
    assert all(storage["config"] == storages[0][0]["config"] for storage in storages[0])


@pytest.mark.parametrize("name", FILES)
def test_runs_whose_worker_died_are_begun_again_and_give_back_what_they_held(name: str):
    document = yaml.safe_load((DEPLOY / name).read_text())
    assert document["run_monitoring"]["enabled"]
    assert document["run_monitoring"]["free_slots_after_run_end_seconds"] > 0
    assert document["run_retries"] == {"enabled": True, "max_retries": 3, "retry_on_asset_or_op_failure": False}


@pytest.mark.parametrize("name", FILES)
def test_no_instance_asks_an_archive_for_more_than_64_connections_at_once_or_leaves_workers_idle(name: str):
    text = (DEPLOY / name).read_text()
    concurrency = yaml.safe_load(text)["concurrency"]
    workers, steps = concurrency["runs"]["max_concurrent_runs"], concurrency["pools"]["default_limit"]
    said = re.search(r"NEURALPILE_CONNECTIONS=(\d+)", text)
    connections = int(said[1]) if said else DEFAULT_CONNECTIONS
    assert workers <= steps
    assert steps * connections <= 64
    assert f"{workers} x {connections} = {workers * connections}" in (DEPLOY / "README.md").read_text()


@pytest.mark.parametrize("name", FILES)
def test_the_comment_of_an_instance_file_names_every_variable_that_it_reads(name: str):
    text = (DEPLOY / name).read_text()
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    read = set(re.findall(r"env: (\w+)", text))
    if name != "celery/dagster.yaml":  # `up` and compose.yaml set them there
        assert [variable for variable in sorted(read) if variable not in comments] == []


@pytest.mark.parametrize("name", FILES)
def test_what_runs_print_goes_to_s3(name: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch):
    s3.use(monkeypatch)
    manager = load(name, monkeypatch).compute_log_manager
    from dagster_aws.s3 import S3ComputeLogManager

    assert isinstance(manager, S3ComputeLogManager)


def test_the_celery_instance_launches_on_workers(monkeypatch: pytest.MonkeyPatch):
    from neuralpile_dagster.orchestration.workers import WorkerRunLauncher

    broker = {
        "DAGSTER_CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
        "DAGSTER_CELERY_BACKEND_URL": "redis://127.0.0.1:1/1",
    }
    instance = load("celery/dagster.yaml", monkeypatch, **broker)
    launcher = instance.run_launcher
    assert isinstance(launcher, WorkerRunLauncher)
    assert launcher.celery.conf.broker_url == "redis://127.0.0.1:1/0"
    assert launcher.celery.conf.accept_content == ["json"]
    assert launcher.celery.conf.task_serializer == "json"
    assert "a-password" not in str(instance.to_dict())  # this is sent to workers with each run


def test_the_kubernetes_instance_makes_jobs_of_our_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed: pip install '.[kubernetes]'")
    from dagster_k8s import K8sRunLauncher
    from kubernetes.config import incluster_config

    for constant in ("SERVICE_TOKEN_FILENAME", "SERVICE_CERT_FILENAME"):  # what every Pod has
        (tmp_path / constant).write_text("x")
        monkeypatch.setattr(incluster_config, constant, str(tmp_path / constant))
    cluster = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
    ours = {"NEURALPILE_IMAGE": "registry.example.org/neuralpile:1", "NEURALPILE_KUBERNETES_NAMESPACE": "lab"}
    launcher = load("kubernetes/dagster.yaml", monkeypatch, **cluster, **ours).run_launcher
    assert isinstance(launcher, K8sRunLauncher)
    assert launcher.job_image == "registry.example.org/neuralpile:1"
    assert launcher.job_namespace == "lab"
    assert launcher.env_secrets == ["neuralpile-secrets"]


def test_the_ecs_instance_runs_tasks_of_our_definition(s3: S3Server, monkeypatch: pytest.MonkeyPatch):
    from dagster_aws.ecs import EcsRunLauncher

    s3.use(monkeypatch)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    import boto3

    ecs = boto3.client("ecs")
    container = {"name": "run", "image": "neuralpile:1", "memory": 4096}
    registered = ecs.register_task_definition(family="neuralpile-run", containerDefinitions=[container])
    launcher = load("ecs/dagster.yaml", monkeypatch, NEURALPILE_TASK_DEFINITION="neuralpile-run").run_launcher
    assert isinstance(launcher, EcsRunLauncher)
    assert launcher.task_definition == registered["taskDefinition"]["taskDefinitionArn"]
    assert launcher.run_resources["memory"] == "4096"


@pytest.mark.parametrize(("name", "cpus"), [("kubernetes", 'cpu: "1"'), ("ecs", 'cpu: "1024"')])
def test_a_run_has_as_many_threads_as_it_asks_for_processors(name: str, cpus: str):
    text = (DEPLOY / name / "dagster.yaml").read_text()
    assert cpus in text
    assert "NEURALPILE_THREADS=1 " in text


def settings_of_the_readme() -> set[str]:
    """What README.md's table names, but for the home, which is a volume of the image."""
    rows = [line for line in README.read_text().splitlines() if line.startswith("| `")]
    return set(re.findall(r"`((?:NEURALPILE|HF|DANDI|FIGSHARE)_[A-Z_]+)`", "\n".join(rows))) - {"NEURALPILE_HOME"}


def test_compose_gives_every_process_what_the_instance_reads_and_every_setting_of_the_readme():
    compose = yaml.safe_load((DEPLOY / "celery" / "compose.yaml").read_text())
    files = [(DEPLOY / "celery" / name).read_text() for name in ("dagster.yaml", "workspace.yaml")]
    wanted = set(re.findall(r"env: (\w+)", "\n".join(files)))
    assert len(settings_of_the_readme()) >= 15
    for name in ("code", "web", "daemon", "worker"):
        given = compose["services"][name]["environment"]
        assert wanted | settings_of_the_readme() | {"AWS_SESSION_TOKEN"} <= set(given)
    assert compose["services"]["web"]["ports"] == ["127.0.0.1:3000:3000"]


READ_SETTINGS = """
from pathlib import Path
from neuralpile_dagster.archives.dandi import DandiArchive
from neuralpile_dagster.archives.figshare import FigshareArchive
from neuralpile_dagster.hub.huggingface import HuggingFaceHub
from neuralpile_dagster.settings import ProcessSettings, Settings
print(Settings.from_environment(), ProcessSettings.from_environment(), HuggingFaceHub.from_environment("lab"))
for archive in (DandiArchive.from_environment(Path("x")), FigshareArchive.from_environment(Path("x"))):
    print(archive.api_url, archive.connections, archive._cache.max_bytes)
"""


def test_a_setting_that_compose_passes_on_empty_counts_as_not_set():
    told = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    empty = told | dict.fromkeys(settings_of_the_readme(), "")
    command = [sys.executable, "-c", READ_SETTINGS]
    said = [run(command, each).stdout for each in (told, empty)]
    assert said[0] == said[1]
    assert "https://huggingface.co" in said[0]
