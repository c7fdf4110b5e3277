"""The pile back from a Hugging Face Hub, and with somebody else's repository there.

In a process of its own, because huggingface_hub and datasets read HF_ENDPOINT when they are imported.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest

from neuralpile_dagster_tests.fixtures.commands import run
from neuralpile_dagster_tests.fixtures.house import MICE, SESSIONS, House, copy_files
from neuralpile_dagster_tests.fixtures.huggingface import hub_for, quiet
from neuralpile_dagster_tests.servers.hf_hub import HubServer

MERGES = """
import json, shutil, sys
from pathlib import Path
from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.hub import open_hub
from neuralpile_dagster.ledger import piles
from neuralpile_dagster.orchestration import names
from neuralpile_dagster_tests.fixtures.house import MICE, house
from neuralpile_dagster_tests.fixtures.merging import merge

home, archive = map(Path, sys.argv[1:])
with house(home, archive, hub="hf", namespace="lab") as made:
    assert made.publish(publish_spike_times=True).success
    def rows(checks=False, **config):
        merge(made, checks=checks, test_size=0.4, seed=3, **config)
        return [file.sha256 for file in open_hub(made.settings).files("neural-pile") if file.path.startswith("data/")]
    result = {"store": rows(checks=True)}
    result["spikes"] = [file.path for file in open_hub(made.settings).files("tiny-mice-spikes")]
    said = made.checks(names.hub_dataset_key(MICE), "spike_times_give_the_counts")[0]
    result["binned"] = said.metadata["found"].value
    shutil.rmtree(home / "store" / MICE.key / "spike_counts")
    result["hub"] = rows(merge_from="hub")
    rows(merge_from="hub", extra_repositories=["other-lab/their-rats"])
    published = piles.require_published(made.store, NEURAL_PILE, made.settings)
    result["components"] = published.components
    result["rows"] = sum(shard.rows for shards in published.shards.values() for shard in shards)
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def merged(built: House, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three piles on one hub: from the store, from the hub, and with the mice of somebody else."""
    folder = tmp_path_factory.mktemp("merged")
    home, archive = copy_files(built.settings.home, built.archive, folder / "copy")
    with HubServer(folder / "server") as server:
        hub_for(server).publish("other-lab/their-rats", built.hub_folder(MICE.name).resolve(), quiet)
        environment = {
            **os.environ,
            "HF_ENDPOINT": server.url,
            "HF_TOKEN": server.token,
            "HF_HOME": str(folder / "huggingface"),
        }
        command = [sys.executable, "-c", MERGES, str(home), str(archive)]
        done = run(command, environment)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_the_pile_has_the_same_bytes_from_the_store_and_from_a_hugging_face_hub(merged: dict[str, Any]) -> None:
    assert len(merged["store"]) == 2
    assert merged["hub"] == merged["store"]


def test_a_repository_of_somebody_else_on_a_hugging_face_hub_can_be_merged(merged: dict[str, Any]) -> None:
    assert merged["components"] == [MICE.name, "their-rats"]
    assert merged["rows"] == 6


def test_spike_times_on_a_hugging_face_hub_give_the_counts_there(merged: dict[str, Any]) -> None:
    assert [path for path in merged["spikes"] if path.startswith("spikes/")] == [
        f"spikes/{key}.parquet" for key in SESSIONS
    ]
    assert merged["binned"] == f"the counts of {', '.join(SESSIONS)}"
