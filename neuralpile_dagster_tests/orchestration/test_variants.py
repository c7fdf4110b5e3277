"""Other bin widths and segment sizes: beside the defaults, never mixed with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.catalog.sample import SAMPLE
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.pile_analyses import bin_widths_s, require_planned
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.settings import Settings
from neuralpile_dagster_tests.fixtures.house import MICE, PILE_MANIFEST, SESSIONS, House, copy_of, failure_of, house
from neuralpile_dagster_tests.fixtures.once import put_sample
from neuralpile_dagster_tests.orchestration.test_batches import contents

RATES = next(dataset for dataset in SAMPLE if dataset.name == "sample-rates")
PROBES = next(dataset for dataset in SAMPLE if dataset.name == "sample-probes")
VARIANT = "-bin10ms-max3000"


def variant_of(made: House) -> House:
    """The same home and store, as an instance with other settings sees it."""
    home, archive = made.settings.home, made.settings.archive
    settings = Settings(home=home, store=made.settings.store, archive=archive, bin_width_s=0.01, max_tokens=3_000)
    return House(settings, made.instance, made.datasets)


@dataclass(frozen=True)
class Both:
    """The mice with the defaults, and then in the same home with other settings; ``before``: as the store was."""

    made: House
    other: House
    before: dict[str, tuple[int, bytes]]
    version: str


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, first_built: House) -> Iterator[Both]:
    with copy_of(first_built, tmp_path_factory.mktemp("variants") / "copy") as made:
        found = Both(made, variant_of(made), contents(made.store.root), version_of(made))
        found.other.build(checks=False)
        yield found


def test_another_bin_width_lives_beside_the_default_and_shares_its_spike_trains(both: Both) -> None:
    made, before, after = both.made, both.before, contents(both.made.store.root)
    changed = {path for path in before if after[path] != before[path]} - {"tiny_mice/manifest.json"}
    assert changed == set()
    added = {path.split("/")[1] for path in after.keys() - before.keys()}
    assert added == {f"spike_counts{VARIANT}", f"published{VARIANT}.json"}
    default, finer = made.hub_folder("tiny-mice"), made.hub_folder(f"tiny-mice{VARIANT}")
    assert rows(default) == {"sub-A_ses-1": 1, "sub-A_ses-2": 1, "sub-B_ses-3": 1}
    assert set(rows(finer)) == set(SESSIONS)
    assert sum(rows(finer).values()) > 3
    assert "0.01 s" in (finer / "README.md").read_text() or "10 ms" in (finer / "README.md").read_text()


def test_the_data_version_of_counts_depends_on_the_bin_width(both: Both) -> None:
    assert version_of(both.other) != both.version


def test_the_pile_takes_components_of_its_own_settings_and_lists_the_others_as_left_out(tmp_path: Path) -> None:
    # of firing rates in 20 ms bins nothing else can be made: each session says so, the pile does without
    put_sample(tmp_path)
    with house(tmp_path, "sample", [RATES, PROBES], bin_width_s=0.01) as made:
        result = made.batch(made.discover(RATES), RATES)
        message = failure_of(result)
        assert "2 of 2 sessions of sample-rates failed" in message
        assert "bins of 0.02 s in the file, 0.01 s requested" in message
        assert "set such a bin width, leave this dataset out, or state `allow_bin_width: true`" in message
        failures = documents.read_failures(made.store, RATES, made.settings)
        assert {failure.error for failure in failures.values()} == {"ConfigurationError"}
        assert "0 of 2 sessions done" in failure_of(made.publish(RATES))
        made.build(PROBES, checks=False)
        assert made.run(PILE_MANIFEST).success
        current = piles.require_current(made.store, NEURAL_PILE, made.settings)
        assert list(current.repositories.values()) == ["sample-probes-bin10ms"]
        assert current.left_out.keys() == {"sample-rates"}
        event = made.instance.get_latest_materialization_event(PILE_MANIFEST)
        assert event is not None
        assert event.asset_materialization is not None
        assert "sample-rates" in str(event.asset_materialization.metadata["left_out"].value)


def test_the_bin_widths_of_a_pile_are_those_of_all_its_sessions(tmp_path: Path) -> None:
    put_sample(tmp_path)
    rates = RATES.model_copy(update={"allow_bin_width": True})
    with house(tmp_path, "sample", [rates, PROBES], bin_width_s=0.01) as made:
        made.build(rates, checks=False)
        made.build(PROBES, checks=False)
        assert made.run(PILE_MANIFEST).success
        of = require_planned(made.store, NEURAL_PILE, made.datasets, made.settings)
        assert bin_widths_s(of) == (0.01, 0.02)
        of.current.repositories["sample-probes-bin10ms"] = "somebody/sample-probes-bin10ms"
        assert bin_widths_s(of) == (), "those of another owner are not known"


def rows(folder: Path) -> dict[str, int]:
    """Rows per session of a published component."""
    sessions = pq.ParquetDataset(folder / "data").read(columns=["session_id"])["session_id"].to_pylist()
    return {session: sessions.count(session) for session in sessions}


def version_of(made: House, dataset: Dataset = MICE) -> str:
    event = made.instance.get_latest_materialization_event(names.spike_counts_key(dataset))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.tags is not None
    return event.asset_materialization.tags["dagster/data_version"]
