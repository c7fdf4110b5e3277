"""`neuralpile build` against a Hugging Face Hub: what is published, what Dagster says of it, what a refusal leaves.

The commands run in processes of their own: huggingface_hub and datasets read HF_ENDPOINT when they are imported.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from neuralpile_dagster.checks.registry import CHECKS
from neuralpile_dagster_tests.fixtures.commands import NEURALPILE, run
from neuralpile_dagster_tests.fixtures.house import Ran, quick_folder
from neuralpile_dagster_tests.fixtures.hub_folders import contents
from neuralpile_dagster_tests.fixtures.huggingface import published
from neuralpile_dagster_tests.fixtures.once import put_sample
from neuralpile_dagster_tests.servers.faults import Fault
from neuralpile_dagster_tests.servers.hf_hub import HubServer

TOKEN = "hf_SecretSecretSecretSecretSecret"
BUILD = ("build", "sample-rates", "--merge")
ASSETS = {
    "sample-rates": ("sample_rates/hub_dataset", "hub_dataset"),
    "neural-pile": ("neural_pile/hub_dataset", "pile"),
}


@dataclass(frozen=True)
class Lab:
    """A home whose hub is ``server``, and nothing else of this machine."""

    folder: Path
    server: HubServer
    token: str = TOKEN

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def __call__(self, *arguments: str | Path) -> Ran:
        """Run the installed command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("NEURALPILE_", "HF_"))}
        environment = {
            **kept,
            "HF_ENDPOINT": self.server.url,
            "HF_TOKEN": self.token,
            "HF_HOME": str(self.folder / "huggingface"),
            "NEURALPILE_HOME": str(self.home),
            "NEURALPILE_ARCHIVE": "sample",
            "NEURALPILE_HUB": "hf",
            "NEURALPILE_NAMESPACE": "lab",
        }
        done = run([NEURALPILE, *arguments], environment)
        return Ran(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Built:
    """A lab after one build and one more."""

    lab: Lab
    first: Ran
    commits: dict[str, int]
    second: Ran
    received: Counter[str]
    called: set[tuple[str, str]]


@pytest.fixture(scope="module")
def built() -> Iterator[Built]:
    with quick_folder() as folder, HubServer(folder / "server", xet=True, token=TOKEN) as server:
        lab = Lab(folder, server)
        put_sample(lab.home)
        first = lab(*BUILD)
        commits = {name: len(server.commits(f"lab/{name}")) for name in ASSETS}
        server.received.clear()
        server.log.clear()
        second = lab(*BUILD)
        called = {(method, target.partition("?")[0]) for method, target, *_ in server.log}
        yield Built(lab, first, commits, second, Counter(server.received), called)


@pytest.fixture
def instance(built: Built, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(built.lab.home))
    with dg.DagsterInstance.from_config(str(built.lab.home)) as opened:
        yield opened


def test_a_build_publishes_every_repository_in_one_commit_and_says_so(built: Built) -> None:
    assert built.first.code == 0, built.first
    assert built.commits == dict.fromkeys(ASSETS, 1)
    for name in ASSETS:
        assert f"lab/{name}: " in built.first.out


@pytest.mark.parametrize("name", ASSETS)
def test_a_repository_holds_the_staged_files_byte_for_byte(built: Built, name: str) -> None:
    staged = contents(built.lab.home / "staging" / name)
    assert "README.md" in staged
    assert any(path.startswith("data/") for path in staged)
    assert published(built.lab.server, f"lab/{name}") == staged


@pytest.mark.parametrize("name", ASSETS)
def test_dagster_evaluated_every_check_of_the_publication_and_all_passed(
    instance: dg.DagsterInstance, name: str
) -> None:
    asset, layer = ASSETS[name]
    due = {name for name, check in CHECKS.items() if check.layer == layer}
    assert due & {"component_reads_back", "pile_reads_back"}
    for check in due:
        key = dg.AssetCheckKey(dg.AssetKey.from_user_string(asset), check)
        said = [record.evaluation for record in instance.event_log_storage.get_asset_check_execution_history(key, 10)]
        assert said, check
        assert all(isinstance(verdict, dg.AssetCheckEvaluation) and verdict.passed for verdict in said), check


@pytest.mark.parametrize("name", ASSETS)
def test_the_materializations_tell_the_bytes_that_were_sent(
    built: Built, instance: dg.DagsterInstance, name: str
) -> None:
    records = instance.fetch_materializations(dg.AssetKey.from_user_string(ASSETS[name][0]), limit=10).records
    made = [record.asset_materialization for record in records]
    sent = [event.metadata["bytes_sent"].value for event in made if event is not None]
    assert sent == ["0", f"{sum(map(len, contents(built.lab.home / 'staging' / name).values())):,}"]


def test_a_second_build_sends_nothing_and_makes_no_commit(built: Built) -> None:
    assert built.second.code == 0, built.second
    assert not built.received
    changing = {(method, path) for method, path in built.called if method not in ("GET", "HEAD")}
    assert all("/paths-info/" in path for _, path in changing)
    assert {name: len(built.lab.server.commits(f"lab/{name}")) for name in ASSETS} == built.commits


def test_rasters_are_drawn_from_a_repository_on_the_hub(built: Built) -> None:
    picture = built.lab.folder / "rates.png"
    ran = built.lab("raster", "lab/sample-rates", "-o", picture, "-n", "2")
    assert (ran.code, ran.out) == (0, f"{picture}: 2 rows of lab/sample-rates\n")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_push_refused_for_good_ends_in_one_clear_paragraph_and_leaves_the_token_nowhere(built: Built) -> None:
    refusal = Fault("status", path="/commit/", status=403, body=f"no, Bearer {TOKEN}".encode(), times=10_000)
    with quick_folder() as folder, HubServer(folder / "server", xet=True, token=TOKEN) as server:
        server.faults.add(refusal)
        lab = Lab(folder, server)
        shutil.copytree(built.lab.home, lab.home)  # with its sessions
        ran = lab("build", "sample-rates")
        assert ran.code == 1
        (said,) = [line for line in (ran.out + ran.err).splitlines() if "status 403" in line]
        assert said.strip().startswith("sample_rates/hub_dataset: lab/sample-rates: the Hub refused while committing")
        assert "<HF_TOKEN>" in said
        assert "what to do: set HF_TOKEN to a token that may write" in said
        assert "Traceback" not in ran.out + ran.err
        assert server.commits("lab/sample-rates") == []
        require_left_without_token(lab, ran)


def test_a_build_without_a_token_says_before_anything_else_that_nothing_will_be_published(built: Built) -> None:
    with quick_folder() as folder, HubServer(folder / "server", xet=True, token=TOKEN) as server:
        lab = Lab(folder, server, token="")
        shutil.copytree(built.lab.home, lab.home)  # with its sessions
        ran = lab("build", "sample-rates")
        assert ran.code == 1
        assert ran.err.startswith(
            f"warning: nothing will be published: {server.url} cannot be published to; found: no token; "
            "what to do: set HF_TOKEN"
        )
        assert server.log == []


def require_left_without_token(lab: Lab, ran: Ran) -> None:
    """The output, and whatever the command wrote: event log, compute logs, store, staging, caches of hf_xet."""
    assert TOKEN not in ran.out + ran.err
    files = [path for top in (lab.home, lab.folder / "huggingface") for path in top.rglob("*") if path.is_file()]
    endings = {path.suffix for path in files}
    assert endings >= {".db", ".err", ".out", ".json", ".md", ".parquet", ".log"}
    told = [path for path in files if b"<HF_TOKEN>" in path.read_bytes()]
    assert any(path.suffix == ".db" for path in told), "the failure is in the event log"
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []
