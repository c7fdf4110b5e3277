"""The sample's pile, made by four workers while workers, broker and database die, and on one machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from neuralpile_dagster_tests.fixtures.house import neuralpile
from neuralpile_dagster_tests.fixtures.once import put_sample
from neuralpile_dagster_tests.servers.cluster import Cluster, missing_programs, wait_until, write_instance
from neuralpile_dagster_tests.servers.faults import Fault
from neuralpile_dagster_tests.servers.s3 import S3Server

pytestmark = [
    pytest.mark.slow_first,
    pytest.mark.asked_for,
    pytest.mark.skipif(bool(missing_programs()), reason=missing_programs()),
]
DATASETS = ("sample_units", "sample_probes", "sample_rates")


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the same pile made by one process, with a folder as store."""
    home = tmp_path_factory.mktemp("one-machine")
    put_sample(home)
    names = [dataset.replace("_", "-") for dataset in DATASETS]
    built = neuralpile("build", *names, "--merge", NEURALPILE_HOME=home, NEURALPILE_ARCHIVE="sample")
    assert built.code == 0, built.err
    return home


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    return s3.new_bucket()


@pytest.fixture(scope="module")
def cluster(s3: S3Server, bucket: str) -> Iterator[Cluster]:
    """Four workers, a store on S3; in a folder that the user postgres can reach when the tests run as root."""
    home = Path(tempfile.mkdtemp(prefix="neuralpile-cluster-"))
    home.chmod(0o711)
    settings = {
        **s3.environment(),
        "AWS_DEFAULT_REGION": "eu-central-1",
        "NEURALPILE_ARCHIVE": "sample",
        "NEURALPILE_STORE": f"s3://{bucket}/store",
        "NEURALPILE_LOGS_BUCKET": bucket,
    }
    write_instance(home, 4, poll_s=2)
    made = Cluster(home, 4, settings)
    try:
        made.up()
        yield made
    finally:
        s3.front.faults.clear()
        (os.environ.get("KEEP") or made.down())
        (os.environ.get("KEEP") or shutil.rmtree(home))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def struck(s3: S3Server, fault: Fault) -> None:
    """Wait until a fault has struck: the process that met it is in the middle of what it does."""
    wait_until(
        lambda: [t for _, m, t in s3.front.faults.struck if m == fault.method and fault.path in t],
        f"{fault.method} {fault.path}",
    )


def made_on_one_machine(home: Path) -> dict[str, str]:
    """sha256 of every file in the store, by key, but for manifests: they say when an archive was listed."""
    root = home / "store"
    files = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {key: sha256(path.read_bytes()) for key, path in files.items() if not key.endswith("/manifest.json")}


def made_on_s3(s3: S3Server, bucket: str) -> dict[str, str]:
    """The same of the store on S3."""
    keys = [name.removeprefix("store/") for name in s3.names(bucket) if name.startswith("store/")]
    bodies = {key: s3.client.get_object(Bucket=bucket, Key=f"store/{key}")["Body"].read() for key in keys}
    return {key: sha256(body) for key, body in bodies.items() if not key.endswith("/manifest.json")}


def published(home: Path) -> dict[str, str]:
    """sha256 of every file of every dataset in a local hub."""
    files = {}
    for dataset in sorted((home / "hub" / "local").iterdir()):
        for path in sorted(dataset.rglob("*")) if not dataset.name.startswith(".") else ():
            if path.is_file():
                files[f"{dataset.name}/{path.relative_to(dataset)}"] = sha256(path.read_bytes())
    return files


def make_sessions(cluster: Cluster, s3: S3Server) -> None:
    """All sessions in one backfill, while a worker, a child, the broker and the database die, all at once."""
    for run in [cluster.materialize(f"{dataset}/manifest") for dataset in DATASETS]:
        assert cluster.finish(run) == "SUCCESS"
    known = {dataset: cluster.partitions(f"{dataset}/spike_counts") for dataset in DATASETS}
    in_a_session = Fault("hang", method="PUT", path=f"sample_units/spike_counts/{known['sample_units'][1]}.parquet")
    in_another = Fault("hang", method="PUT", path=f"sample_probes/spike_trains/{known['sample_probes'][1]}.parquet")
    s3.front.faults.add(in_a_session, in_another)
    assets = {f"{dataset}/{kind}": known[dataset] for dataset in DATASETS for kind in ("spike_trains", "spike_counts")}
    backfill = cluster.backfill(assets)
    struck(s3, in_a_session)
    struck(s3, in_another)
    worker, _ = cluster.working_on("sample_units/spike_counts")
    _, child = cluster.working_on("sample_probes/spike_counts")
    cluster.kill(worker)
    os.kill(child, signal.SIGKILL)
    cluster.kill("redis")
    cluster.stop_postgres()
    cluster.up()
    assert cluster.finish_backfill(backfill) == "COMPLETED_SUCCESS"
    for dataset in DATASETS:
        for kind in ("spike_trains", "spike_counts"):
            assert set(cluster.materialized(f"{dataset}/{kind}")) == set(known[dataset])


def publish(cluster: Cluster, s3: S3Server) -> None:
    """All components, at once; the process that publishes one dies in the middle."""
    in_a_publish = Fault("hang", method="GET", path="sample_units/spike_counts/sub-S2_ses-20200103T120000.parquet")
    s3.front.faults.add(in_a_publish)
    runs = [cluster.materialize(f"{dataset}/hub_dataset") for dataset in DATASETS]
    struck(s3, in_a_publish)
    _, child = cluster.working_on("sample_units/hub_dataset")
    os.kill(child, signal.SIGKILL)
    assert [cluster.finish(run) for run in runs] == ["SUCCESS"] * len(DATASETS)


def merge(cluster: Cluster, s3: S3Server) -> None:
    """Each shard by a worker of its own, one of which dies in the middle; then the pile."""
    assert cluster.finish(cluster.materialize("neural_pile/manifest")) == "SUCCESS"
    shards = cluster.partitions("neural_pile/shards")
    in_a_shard = Fault("hang", method="PUT", path=f"{shards[0]}.parquet")
    s3.front.faults.add(in_a_shard)
    runs = [cluster.materialize("neural_pile/shards", shard) for shard in shards]
    struck(s3, in_a_shard)
    _, child = cluster.working_on("neural_pile/shards")
    os.kill(child, signal.SIGKILL)
    assert [cluster.finish(run) for run in runs] == ["SUCCESS"] * len(shards)
    assert cluster.finish(cluster.materialize("neural_pile/hub_dataset")) == "SUCCESS"


def test_what_is_made_while_workers_broker_and_database_die_is_what_one_machine_makes(
    cluster: Cluster, s3: S3Server, bucket: str, one_machine: Path
):
    make_sessions(cluster, s3)
    publish(cluster, s3)
    merge(cluster, s3)
    expected = made_on_one_machine(one_machine)
    assert len([name for name in expected if name.endswith(".parquet")]) >= 24
    assert made_on_s3(s3, bucket) == expected
    assert published(cluster.home) == published(one_machine)


def test_two_workers_asked_for_the_same_session_leave_one_result_of_the_same_bytes(
    cluster: Cluster, s3: S3Server, bucket: str, one_machine: Path
):
    assert cluster.finish(cluster.materialize("sample_rates/manifest")) == "SUCCESS"
    session = cluster.partitions("sample_rates/spike_counts")[0]
    files = {key: digest for key, digest in made_on_one_machine(one_machine).items() if f"/{session}." in key}
    for key in files:  # where it was made before, it is forgotten
        s3.client.delete_object(Bucket=bucket, Key=f"store/{key}")
    s3.front.latency_s = 1.0  # both are in the middle of it at once
    uploads = f"spike_counts/{quote(session)}.parquet"
    before = len(s3.front.requests("PUT", uploads))
    runs = [cluster.materialize(["sample_rates/spike_trains", "sample_rates/spike_counts"], session) for _ in range(2)]
    assert [cluster.finish(run) for run in runs] == ["SUCCESS"] * 2
    s3.front.latency_s = 0.0
    assert len(s3.front.requests("PUT", uploads)) == before + 2
    assert {key: digest for key, digest in made_on_s3(s3, bucket).items() if f"/{session}." in key} == files
