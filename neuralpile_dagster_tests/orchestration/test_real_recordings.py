"""The two real recordings in the shared data become a component and a pile; the one without units is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pynwb import NWBHDF5IO

from neuralpile_dagster.catalog.load import load_catalog
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.analyses import ANNOTATIONS
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.settings import Settings
from neuralpile_dagster_tests.fixtures.house import House, failure_of, house
from neuralpile_dagster_tests.orchestration.checks.test_pile import merge

CATALOG = """\
datasets:
  - name: head-direction
    title: Mouse head-direction recordings (test data of pynapple)
    source: {archive: dandi, id: "990001"}
    sessions: {requires: [Units]}
    species: mouse
"""
BIG, SMALL, CALCIUM = (
    "sub-A2929_ses-200711_behavior+ecephys",
    "sub-A8604_ses-211122_behavior+ecephys",
    "sub-A0634_ses-210127_ophys",
)


def row_of(home: Path, archive: Path, catalog: str) -> Dataset:
    home.mkdir(parents=True, exist_ok=True)
    (home / "catalog.yaml").write_text(catalog)
    return load_catalog(Settings(home=home, store=str(home / "store"), archive=str(archive)))["head-direction"]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[tuple[House, Dataset]]:
    """The component and the pile, built."""
    home, archive = tmp_path_factory.mktemp("real"), shared_data / "recordings"
    row = row_of(home, archive, CATALOG)
    with house(home, archive, [row]) as made:
        keys = made.discover(row)
        assert made.batch(keys, row).success
        assert made.run(names.asset_key(row, ANNOTATIONS), partitions=keys).success
        assert made.publish(row, checks=False).success
        merge(made, split_by="sessions", test_size=0.5)
        yield made, row


def test_both_recordings_have_the_known_units_bins_and_spikes(real: tuple[House, Dataset]) -> None:
    made, row = real
    stats = {
        key: record.stats
        for key in (BIG, SMALL)
        if (record := documents.read_counts_record(made.store, row, made.settings, key)) is not None
    }
    assert {key: (s.n_units, s.n_bins, s.spikes_kept) for key, s in stats.items()} == {
        BIG: (15, 59_999, 98_794),
        SMALL: (3, 54_368, 21_354),
    }


def test_the_recording_without_units_is_counted_among_the_dropped_files(real: tuple[House, Dataset]) -> None:
    manifest = documents.read_manifest(real[0].store, real[1])
    assert manifest.considered == 3
    assert manifest.dropped == {"metadata has no Units": 1}
    assert [session.key for session in manifest.sessions] == [BIG, SMALL]


def test_the_pile_holds_all_tokens_of_the_component(real: tuple[House, Dataset]) -> None:
    published = piles.require_published(real[0].store, NEURAL_PILE, real[0].settings)
    tokens = sum(shard.tokens for shards in published.shards.values() for shard in shards)
    assert tokens == 15 * 59_999 + 3 * 54_368


def test_without_the_rule_it_fails_with_the_reason_and_the_rest_can_be_published(
    real: tuple[House, Dataset], tmp_path: Path
) -> None:
    home, archive = tmp_path / "home", real[0].archive
    shutil.copytree(real[0].settings.home, home, symlinks=True)  # the recordings are read already
    row = row_of(home, archive, CATALOG.replace("    sessions: {requires: [Units]}\n", ""))
    with house(home, archive, [row]) as made:
        result = made.batch(made.discover(row), row)
        assert f"{CALCIUM}: sub-A0634/{CALCIUM}.nwb has no units table" in failure_of(result)
        assert made.made(names.spike_counts_key(row)) == {BIG, SMALL}
        failures = documents.read_failures(made.store, row, made.settings)
        assert {key: failure.error for key, failure in failures.items()} == {CALCIUM: "NoUnits"}
        assert not made.publish(row).success
        assert made.publish(row, checks=False, min_session_share=0.6).success
        published = documents.require_published(made.store, row, made.settings)
        assert list(published.missing) == [CALCIUM]
        assert published.totals.spikes == 98_794 + 21_354


@pytest.mark.parametrize("repository", ["head-direction", "neural-pile"])
def test_epochs_joined_to_counts_hold_the_spikes_that_pynwb_reads_between_their_times(
    real: tuple[House, Dataset], repository: str, shared_data: Path
) -> None:
    made, _ = real
    folder = made.hub_folder(repository)
    intervals, segments = (
        pq.read_table(folder / config / f"{config}.parquet").to_pylist() for config in ("intervals", "segments")
    )
    for path in sorted((shared_data / "recordings").rglob("*ecephys.nwb")):
        with NWBHDF5IO(path, "r", load_namespaces=True) as io:
            nwb = io.read()
            spikes = [np.asarray(times) for times in nwb.units["spike_times"][:]]
            tables = {name: table.to_dataframe() for name, table in nwb.intervals.items()}
        (segment,) = [row for row in segments if row["session_id"] == path.stem]
        group = pq.ParquetFile(folder / segment["file"]).read_row_group(segment["row_group"])
        counts = np.array(group["spike_counts"][0].as_py(), np.uint8)
        edges = np.arange(counts.shape[1] + 1) * 0.02
        for name, table in tables.items():
            mine = [row for row in intervals if row["session_id"] == path.stem and row["table"] == name]
            assert [row["start_time"] for row in mine] == table["start_time"].tolist()
            assert [json.loads(row["values"])["tags"] for row in mine] == [list(tags) for tags in table["tags"]]
            for row in mine:
                for bin_, time in ((row["start_bin"], row["start_time"]), (row["stop_bin"], row["stop_time"])):
                    exact = np.searchsorted(edges, time, side="right") - 1 if time < edges[-1] else counts.shape[1]
                    assert bin_ == exact
                between = [
                    np.count_nonzero((t >= edges[row["start_bin"]]) & (t < edges[row["stop_bin"]])) for t in spikes
                ]
                found = counts[:, row["start_bin"] : row["stop_bin"]].sum(axis=1)
                assert abs(found - between).max() <= (row["stop_bin"] == counts.shape[1]), "the last bin is closed"
