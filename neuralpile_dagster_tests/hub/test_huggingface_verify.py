"""What is published can be loaded by `datasets`, and `verify_publication` notices when it is not what it should be."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets.packaged_modules.parquet.parquet import Parquet

from neuralpile_dagster.errors import HubUnavailable
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.hub.verify import verify_publication
from neuralpile_dagster.publish.card_parts import metadata_block
from neuralpile_dagster.publish.component import write_component
from neuralpile_dagster.publish.configs import write_config
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster_tests.fixtures import commands
from neuralpile_dagster_tests.fixtures.huggingface import hub_for, quiet
from neuralpile_dagster_tests.fixtures.sessions import DATASET, SEGMENT_BINS, counts_of, manifest_of, put_session
from neuralpile_dagster_tests.servers.faults import Fault
from neuralpile_dagster_tests.servers.hf_hub import HubServer

VERIFY = """
import json, sys
from pathlib import Path
from neuralpile_dagster.hub.huggingface import HuggingFaceHub
from neuralpile_dagster.hub.verify import verify_publication
print(json.dumps(verify_publication(HuggingFaceHub.from_environment("lab"), "mice", Path(sys.argv[1]))))
"""
LOAD = """
import json, sys
from datasets import load_dataset
rows = load_dataset("lab/mice", split="train", streaming=sys.argv[1] == "streaming")
units = load_dataset("lab/mice", "units", split="train")
print(json.dumps([[[row["session_id"], row["segment_id"], row["spike_counts"]] for row in rows], len(units)]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A component of two sessions."""
    home = tmp_path_factory.mktemp("made")
    store = LocalStore(home / "store")
    records = {name: put_session(store, name) for name in ("ses-a", "ses-b")}
    folder = home / "mice"
    write_component(
        folder, store, DATASET, manifest_of(*records), records, missing={}, repository="lab/mice", progress=quiet
    )
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "mice"))


@pytest.fixture
def local(tmp_path: Path) -> LocalHub:
    return LocalHub(tmp_path / "hub", "lab")


@pytest.fixture
def server(tmp_path: Path, made: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "server") as server:
        hub_for(server).publish("mice", made, quiet)
        yield server


def run(server: HubServer, tmp_path: Path, code: str, argument: object) -> subprocess.CompletedProcess[str]:
    """Run code in a process that knows the test hub from its start, as users' processes know the Hub."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": server.token,
        "HF_HOME": str(tmp_path / "home"),
        "HF_DATASETS_CACHE": str(tmp_path / "home" / "datasets"),
    }
    environment.pop("HF_HUB_OFFLINE", None)
    return commands.run([sys.executable, "-c", code, str(argument)], environment, tmp_path)


@pytest.mark.parametrize("way", ["streaming", "downloading"])
def test_a_published_component_is_loaded_row_by_row(server: HubServer, tmp_path: Path, way: str):
    done = run(server, tmp_path, LOAD, way)
    assert done.returncode == 0, done.stderr
    rows, n_units = json.loads(done.stdout.splitlines()[-1])
    assert n_units == 10
    assert [row[:2] for row in rows] == [[s, f"segment_{k}"] for s in ("ses-a", "ses-b") for k in range(3)]
    for session, segment, counts in rows:
        start = SEGMENT_BINS * int(segment.removeprefix("segment_"))
        assert np.array_equal(counts, counts_of(session, 5, 100)[:, start : start + SEGMENT_BINS])


def test_a_published_component_has_no_differences(server: HubServer, tmp_path: Path, made: Path):
    done = run(server, tmp_path, VERIFY, made)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_a_repository_that_somebody_changed_is_noticed(server: HubServer, tmp_path: Path, made: Path):
    card = server.store.add_blob(b"---\nlicense: mit\n---\n")
    server.store.commit(server.store.repository("lab/mice"), "main", "edit", None, {"README.md": card})
    done = run(server, tmp_path, VERIFY, made)
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout.splitlines()[-1])
    assert any(line.startswith("README.md has other content") for line in differences)
    assert "the card names no config" in differences


def test_a_hub_that_does_not_answer_is_no_difference(server: HubServer, made: Path):
    server.faults.add(Fault("status", status=503, times=1000))
    with pytest.raises(HubUnavailable):
        verify_publication(hub_for(server), "mice", made)


def test_a_component_on_the_local_hub_has_no_differences(local: LocalHub, made: Path):
    local.publish("mice", made, quiet)
    assert verify_publication(local, "mice", made) == []


def test_every_stream_is_read_to_its_end(local: LocalHub, made: Path, monkeypatch: pytest.MonkeyPatch):
    """A process that leaves one early may hang or abort when it exits."""
    read = Parquet._generate_tables
    ended = []

    def watched(self: Parquet, *args: Any, **options: Any) -> Iterator[Any]:
        ended.append(False)
        yield from read(self, *args, **options)
        ended[-1] = True

    monkeypatch.setattr(Parquet, "_generate_tables", watched)
    local.publish("mice", made, quiet)
    assert verify_publication(local, "mice", made) == []
    assert ended == [True] * 6  # one row group of each config: nothing else is read


def test_files_that_are_missing_added_or_other_are_named(local: LocalHub, folder: Path, made: Path):
    (folder / "extra.txt").write_text("more")
    (folder / "units" / "units.parquet").unlink()
    shutil.copy(folder / "sessions" / "sessions.parquet", folder / "preview" / "preview.parquet")
    local.publish("mice", folder, quiet)
    differences = verify_publication(local, "mice", made)
    assert "extra.txt should not be there" in differences
    assert "units/units.parquet is missing" in differences
    assert any(line.startswith("preview/preview.parquet has other content") for line in differences)
    assert any("units/train has 0 rows" in line for line in differences)


@pytest.mark.parametrize(
    ("pattern", "change", "told"),
    [
        (r"num_examples: 6", "num_examples: 7", "default/train has 6 rows, and the card says 7"),
        (r"download_size: \d+", "download_size: 5", "bytes of files, and the card says 5"),
        (r"path: data/train-\*", "path: data/test-*", "default/train has 0 rows, and the card says 6"),
    ],
)
def test_a_card_that_counts_wrongly_is_noticed(local: LocalHub, folder: Path, pattern: str, change: str, told: str):
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(re.sub(pattern, change, card))
    local.publish("mice", folder, quiet)
    assert any(told in line for line in verify_publication(local, "mice", folder))


def test_a_first_row_that_is_another_is_noticed(local: LocalHub, folder: Path, made: Path):
    local.publish("mice", made, quiet)
    shard = next((folder / "data").iterdir())
    store = LocalStore(folder.parent / "store")
    records = {name: put_session(store, name) for name in ("ses-b", "ses-a")}
    other = folder.parent / "other"
    write_component(
        other, store, DATASET, manifest_of(*records), records, missing={}, repository="lab/mice", progress=quiet
    )
    shutil.copy(next((other / "data").iterdir()), shard)
    differences = verify_publication(local, "mice", folder)
    assert any(line.startswith("default/train: the first row") for line in differences)


def test_the_first_of_thousands_of_rows_is_compared(local: LocalHub, tmp_path: Path):
    folder, schema = tmp_path / "motifs", pa.schema([("motif", pa.int64())])
    config = write_config(folder, "motifs", schema, [pa.table({"motif": range(2500)}, schema)])
    card = metadata_block([config], pretty_name="Motifs", licenses=[], tags=[], n_rows=2500)
    (folder / "README.md").write_text(card)
    local.publish("motifs", folder, quiet)
    assert verify_publication(local, "motifs", folder) == []
    write_config(folder, "motifs", schema, [pa.table({"motif": [-1, *range(1, 2500)]}, schema)])
    assert any("the first row" in line for line in verify_publication(local, "motifs", folder))


def test_nothing_published_is_nothing_right(local: LocalHub, folder: Path):
    differences = verify_publication(local, "mice", folder)
    assert "README.md is missing" in differences
    assert "there is no card" in differences
