"""The doctor against servers that answer: DANDI, figshare, the Hub, S3, Redis."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.doctor.probes import Finding
from neuralpile_dagster.doctor.remote import compare_with_storage
from neuralpile_dagster.errors import ArchiveError
from neuralpile_dagster.recordings.manifest import choose_sessions
from neuralpile_dagster_tests.fixtures.archives import archive_of
from neuralpile_dagster_tests.fixtures.once import put_sample
from neuralpile_dagster_tests.fixtures.visit import NETWORK, ROOT, Visit, doctor, dripping
from neuralpile_dagster_tests.servers.cluster import free_port, missing_programs
from neuralpile_dagster_tests.servers.dandi_server import DandiServer, dandi_server
from neuralpile_dagster_tests.servers.faults import Fault
from neuralpile_dagster_tests.servers.figshare_server import FigshareServer, figshare_server
from neuralpile_dagster_tests.servers.hf_hub import HubServer
from neuralpile_dagster_tests.servers.hf_hub_account import whoami
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_nwb_without_units, write_units_nwb
from neuralpile_dagster_tests.servers.postgres import postgres_server
from neuralpile_dagster_tests.servers.s3 import S3Server

IURILLI = next(row for row in RODENT if row.name == "iurilli")
FIGSHARE = next(row for row in RODENT if row.name == "steinmetz-2")
PATH = "sub-001/sub-001.nwb"
OFFLINE = {"NEURALPILE_ARCHIVE": "sample"}


@dataclass(frozen=True)
class World:
    """Servers that have what the doctor looks for, and an environment that uses them."""

    folder: Path
    dandi: DandiServer
    figshare: FigshareServer

    def visit(self, *arguments: str, **environment: Any) -> Visit:
        places = {"DANDI_API_URL": self.dandi.api_url, "FIGSHARE_API_URL": self.figshare.api_url}
        return doctor(self.folder / "home", *arguments, environment={**places, **environment})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    recording = write_units_nwb(tmp_path / "recording.nwb", poisson_trains(20, 60.0, 40.0, seed=1))
    with dandi_server() as dandi, figshare_server() as figshare:
        dandi.store.add_file(IURILLI.source.id, IURILLI.source.version, PATH, recording)
        names = ("spksKrebs_Feb18.mat", "spksRobbins_Feb18.mat", "spksWaksman_Feb18.mat")
        for _ in range(int(FIGSHARE.source.version) if FIGSHARE.source.version.isdigit() else 1):
            figshare.store.add_article(int(FIGSHARE.source.id), dict.fromkeys(names, recording))
        yield World(tmp_path, dandi, figshare)


def test_all_is_well_where_every_server_has_what_the_catalog_expects(
    world: World, s3: S3Server, tmp_path: Path
) -> None:
    bucket = s3.new_bucket()
    with HubServer(tmp_path / "hub") as hub:
        places = {
            **s3.environment(),
            "NEURALPILE_STORE": f"s3://{bucket}/prefix",
            "NEURALPILE_HUB": "hf",
            "NEURALPILE_NAMESPACE": "lab",
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": hub.token,
        }
        visit = world.visit("--json", **places)
        changes = [entry for entry in hub.log if entry[0] not in ("GET", "HEAD")]
    lines = visit.lines
    assert visit.code == 0, visit
    assert {name for name, line in lines.items() if line["status"] != "ok"} == {"plugins", "postgres", "broker"}
    assert "1 session, as expected" in lines["archive listing"]["found"]
    assert f"{PATH}: the first 1,000 of " in lines["archive reading"]["found"]
    assert "3 sessions, as expected" in lines["figshare"]["found"]
    assert "whose role in lab is write; it may write" in lines["hub"]["found"]
    assert s3.names(bucket) == []
    assert changes == []


def test_size_and_digest_as_stated_are_compared_with_what_the_storage_answers(world: World) -> None:
    size = (world.folder / "recording.nwb").stat().st_size
    line = world.visit("--json").lines["archive digests"]
    assert line["status"] == "ok"
    assert f"{size:,} bytes as listed" in line["found"]
    (asset,) = world.dandi.store.dandisets[IURILLI.source.id].versions[IURILLI.source.version].assets.values()
    assert line["found"].count(asset.etag) == 2


def test_a_storage_that_differs_from_what_is_listed_warns_or_fails(world: World) -> None:
    archive = archive_of(world.dandi, world.folder)
    (session,) = choose_sessions(IURILLI, archive.list_files(IURILLI.source)).sessions
    (file,) = session.files

    def compare(**listed: Any) -> Finding:
        changed = session.model_copy(update={"files": (file.model_copy(update=listed),)})
        return compare_with_storage(archive, IURILLI, changed)

    assert compare().status == "ok"
    assert compare(digests={**file.digests, "dandi-etag": f"{0:032x}-1"}).status == "warning"
    strange = compare(digests={**file.digests, "dandi-etag": "of another form"})
    assert (strange.status, "<32 hex digits>-<parts>" in strange.found) == ("failed", True)
    with pytest.raises(ArchiveError, match="is not the file that was listed"):
        compare(size=file.size + 1)


def test_a_storage_that_never_ends_its_answer_does_not_keep_the_process(world: World) -> None:
    with dripping() as port:
        away = (("Location", f"http://127.0.0.1:{port}/"),)
        world.dandi.faults.add(Fault("status", path="^/blobs/", status=302, headers=away, times=1000))
        visit = world.visit("--json")
    assert visit.code == 1
    assert visit.statuses["archive listing"] == "ok"
    assert "no result within" in visit.lines["archive reading"]["found"]


def test_a_rule_that_chooses_more_than_expected_warns(world: World) -> None:
    recording = write_units_nwb(world.folder / "second.nwb", poisson_trains(3, 10.0))
    world.dandi.store.add_file(IURILLI.source.id, IURILLI.source.version, "sub-002/sub-002.nwb", recording)
    line = world.visit("--json").lines["archive listing"]
    assert (line["status"], "2 sessions, 1 expected" in line["found"]) == ("warning", True)


def test_a_rule_that_chooses_nothing_fails_and_nothing_is_read(tmp_path: Path) -> None:
    recording = write_units_nwb(tmp_path / "recording.nwb", poisson_trains(3, 10.0))
    with dandi_server() as dandi, figshare_server() as figshare:
        dandi.store.add_file(IURILLI.source.id, IURILLI.source.version, PATH, recording, variables=("Position",))
        visit = World(tmp_path, dandi, figshare).visit("--json")
    line = visit.lines["archive listing"]
    assert line["status"] == "failed"
    assert "1 dropped: metadata has no Units" in line["found"]
    assert visit.statuses["archive reading"] == "not tried"


def test_a_dataset_is_read_session_by_session_with_the_reason_where_one_fails(world: World) -> None:
    world.dandi.store.add_version("990500", "0.240101.0000")
    (world.folder / "home").mkdir()
    (world.folder / "home" / "catalog.yaml").write_text(
        "datasets:\n  - {name: mine, title: Mine, source: {archive: dandi, id: '990500'}}\n"
    )
    for number in range(6):
        path = world.folder / f"{number}.nwb"
        if number == 1:
            write_nwb_without_units(path)
        else:
            write_units_nwb(path, poisson_trains(3 + number, 30.0, seed=number))
        world.dandi.store.add_file("990500", "0.240101.0000", f"sub-{number}/sub-{number}.nwb", path)
    visit = world.visit("--json", "--dataset", "mine")
    lines = {name: line for name, line in visit.lines.items() if name.startswith("mine")}
    assert visit.code == 1
    assert len(lines) == 1 + 5
    assert "6 sessions" in lines["mine"]["found"]
    assert "has no units table" in lines["mine sub-1"]["found"]
    assert lines["mine sub-0"]["found"].startswith("3 units, ")
    assert {name for name, line in lines.items() if line["status"] == "failed"} == {"mine sub-1"}


def test_a_dataset_of_figshare_is_listed_and_not_downloaded(world: World) -> None:
    visit = world.visit("--json", "--dataset", "steinmetz-2")
    assert visit.statuses["steinmetz-2"] == "ok"
    assert visit.statuses["steinmetz-2 spksKrebs_Feb18"] == "not needed"
    assert world.figshare.http.requests(part="/store/") == []


def test_a_dataset_that_does_not_exist_is_a_failed_line_with_close_names(world: World) -> None:
    visit = world.visit("--json", "--dataset", "iurili")
    assert visit.code == 1
    assert "did you mean 'iurilli'" in visit.lines["iurili"]["remedy"]


def test_the_sample_needs_no_network_and_is_not_made_by_the_doctor(tmp_path: Path) -> None:
    home = tmp_path / "home"
    visit = doctor(home, "--json", environment=OFFLINE)
    assert visit.code == 0
    assert {name for name, status in visit.statuses.items() if status == "not needed"} >= NETWORK
    assert not home.exists()
    put_sample(home)
    visit = doctor(home, "--json", environment=OFFLINE)
    assert visit.code == 0
    assert visit.statuses["archive listing"] == visit.statuses["archive reading"] == "ok"
    assert visit.statuses["figshare"] == visit.statuses["archive digests"] == "not needed"


def test_a_folder_of_dandisets_is_tried_instead_of_dandi(tmp_path: Path) -> None:
    write_units_nwb(tmp_path / "archive" / IURILLI.source.id / PATH, poisson_trains(5, 10.0))
    visit = doctor(tmp_path / "home", "--json", environment={"NEURALPILE_ARCHIVE": tmp_path / "archive"})
    assert visit.statuses["archive listing"] == visit.statuses["archive reading"] == "ok"
    assert "does not say its version" in visit.lines["archive listing"]["found"]
    assert (visit.code, visit.statuses["figshare"]) == (0, "not needed")


def test_a_folder_without_any_dataset_fails(tmp_path: Path) -> None:
    visit = doctor(tmp_path / "home", "--json", environment={"NEURALPILE_ARCHIVE": tmp_path})
    assert visit.code == 1
    assert "holds no dataset of the catalog" in visit.lines["archive listing"]["found"]


def test_a_token_that_may_only_read_fails_when_the_hub_is_hugging_face(tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub") as hub:
        hub.account = whoami("lab", role="read")
        places = {"NEURALPILE_HUB": "hf", "NEURALPILE_NAMESPACE": "lab", "HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token}
        visit = doctor(tmp_path / "home", "--json", environment={**OFFLINE, **places})
    assert visit.code == 1
    assert "it may only read" in visit.lines["hub"]["found"]
    assert hub.token not in visit.out + visit.err


def test_a_token_that_the_hub_refuses_fails_and_so_does_none(tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub") as hub:
        places = {**OFFLINE, "NEURALPILE_HUB": "hf", "NEURALPILE_NAMESPACE": "lab"}
        places["HF_ENDPOINT"] = hub.url
        wrong = doctor(tmp_path / "home", "--json", environment={**places, "HF_TOKEN": "hf_wrongwrongwrong"})
        none = doctor(tmp_path / "home", "--json", environment=places)
    assert "status 401" in wrong.lines["hub"]["found"]
    assert "HF_TOKEN" in wrong.lines["hub"]["remedy"]
    assert "hf_wrongwrongwrong" not in wrong.out + wrong.err
    assert (none.code, "no token" in none.lines["hub"]["found"]) == (1, True)


def test_a_bucket_that_does_not_exist_fails(tmp_path: Path, s3: S3Server) -> None:
    places = {**s3.environment(), **OFFLINE, "NEURALPILE_STORE": "s3://no-such-bucket/p"}
    visit = doctor(tmp_path / "home", "--json", environment=places)
    assert visit.code == 1
    assert "NoSuchBucket" in visit.lines["store"]["found"]
    assert "create the bucket" in visit.lines["store"]["remedy"]


@pytest.mark.skipif(bool(missing_programs()), reason=missing_programs())
def test_database_and_broker_of_a_cluster_are_ok_and_fail_with_another_password(tmp_path: Path) -> None:
    home, port = tmp_path / "home", str(free_port())
    home.mkdir()
    shutil.copy(ROOT / "deploy" / "celery" / "dagster.yaml", home)
    redis = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--requirepass", "opensesame", "--save", ""]
    with (
        postgres_server() as database,
        subprocess.Popen(redis, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server,
    ):
        assert server.stdout is not None
        next(line for line in server.stdout if "Ready to accept connections" in line)
        places = {
            **OFFLINE,
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": database.port,
            "DAGSTER_PG_DB": "postgres",
            "DAGSTER_PG_USERNAME": "tester",
            "DAGSTER_PG_PASSWORD": "opensesame",
            "DAGSTER_CELERY_BROKER_URL": f"redis://:opensesame@127.0.0.1:{port}/0",
        }
        wrong = {
            "DAGSTER_PG_USERNAME": "nobody-here",
            "DAGSTER_CELERY_BROKER_URL": f"redis://:shutsesame@127.0.0.1:{port}/0",
        }
        good = doctor(home, "--json", environment=places)
        bad = doctor(home, "--json", environment={**places, **wrong})
        server.terminate()
    assert good.code == 0, good
    assert good.lines["postgres"]["found"].startswith(f"127.0.0.1:{database.port}/postgres: Postgres ")
    assert good.lines["broker"]["found"] == f"Redis at 127.0.0.1:{port} responds"
    assert (bad.code, bad.statuses["postgres"], bad.statuses["broker"]) == (1, "failed", "failed")
    assert "sesame" not in good.out + bad.out
