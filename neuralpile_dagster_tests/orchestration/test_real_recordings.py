"""The two real recordings in the shared data become a component and a pile; the one without units is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from neuralpile_dagster.catalog.load import load_catalog
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.ledger import documents, piles
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
        made.build(row)
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
    tmp_path: Path, shared_data: Path
) -> None:
    archive = shared_data / "recordings"
    row = row_of(tmp_path, archive, CATALOG.replace("    sessions: {requires: [Units]}\n", ""))
    with house(tmp_path, archive, [row]) as made:
        result = made.batch(made.discover(row), row)
        assert f"{CALCIUM}: sub-A0634/{CALCIUM}.nwb has no units table" in failure_of(result)
        assert made.made(names.spike_counts_key(row)) == {BIG, SMALL}
        failures = documents.read_failures(made.store, row, made.settings)
        assert {key: failure.error for key, failure in failures.items()} == {CALCIUM: "NoUnits"}
        assert not made.publish(row).success
        assert made.publish(row, min_session_share=0.6).success
        published = documents.require_published(made.store, row, made.settings)
        assert list(published.missing) == [CALCIUM]
        assert published.totals.spikes == 98_794 + 21_354
