"""What a user with internet types, against a DANDI that speaks the real API and fails now and then."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq

from neuralpile_dagster_tests.fixtures.house import neuralpile
from neuralpile_dagster_tests.servers.dandi_documents import person
from neuralpile_dagster_tests.servers.dandi_server import dandi_server
from neuralpile_dagster_tests.servers.faults import Fault
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_units_nwb

PATH = "sub-001/sub-001.nwb"
VERSION = "0.240305.0945"
RAW_BYTES = 20_000_000


def test_building_iurilli_reads_only_the_spikes_and_publishes_them_with_licence_and_authors(tmp_path: Path):
    recording = write_units_nwb(tmp_path / "recording.nwb", poisson_trains(20, 60.0, seed=1))
    with h5py.File(recording, "r+") as file:  # like what else a recording holds: most of its bytes
        file["acquisition/raw"] = np.random.default_rng(1).integers(0, 256, RAW_BYTES, dtype=np.uint8)
    with dandi_server() as server:
        server.store.add_version(
            "000931", VERSION, contributor=[person("Iurilli, Giuliano", "Author", "ContactPerson")]
        )
        server.store.add_file("000931", VERSION, PATH, recording, variables=("Units",))
        server.faults.add(Fault("status", path=r"/assets/", times=2, status=503))
        home = {"NEURALPILE_HOME": tmp_path / "home", "DANDI_API_URL": server.api_url}
        listed = neuralpile("sessions", "iurilli", "--json", **home)
        assert json.loads(listed.out)["files"][0]["path"] == PATH
        built = neuralpile("build", "iurilli", **home)
    assert built.code == 0, built.err
    assert server.http.bytes_sent < RAW_BYTES / 10
    folder = tmp_path / "home" / "hub" / "local" / "iurilli"
    card = (folder / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "Iurilli" in card
    [shard] = (folder / "data").iterdir()
    assert pq.read_table(shard, columns=["session_id"])["session_id"].to_pylist() == ["sub-001"]
