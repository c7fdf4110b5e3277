"""Spike times as they are published where a person asks: stored files, tables, card and check; elsewhere nothing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.checks.dataset import spike_times_give_the_counts
from neuralpile_dagster.checks.model import Verdict
from neuralpile_dagster.errors import HubError
from neuralpile_dagster.hub import Publication, open_hub
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.hub.verify import verify_publication
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.due import dataset_due, pile_due
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.reading import spike_times
from neuralpile_dagster.recordings.model import Recording, SessionFacts, SpikeTrains, Unit
from neuralpile_dagster.records import ComponentRecord
from neuralpile_dagster.store import read_record, write_record
from neuralpile_dagster.tables.spike_trains import read_recording, write_recording
from neuralpile_dagster_tests.fixtures.house import MICE, SESSIONS, House, copy_of, failure_of, trains_of

OPTED_IN = MICE.model_copy(update={"publish_spike_times": True})
KEY = names.hub_dataset_key(MICE)


def published(house: House) -> ComponentRecord:
    return documents.require_published(house.store, MICE, house.settings)


def judged(house: House) -> Verdict:
    return spike_times_give_the_counts(open_hub(house.settings), published(house), MICE.max_session_tokens)


def metadata_of(house: House) -> dict[str, Any]:
    event = house.instance.get_latest_materialization_event(KEY)
    assert event is not None and event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def repository(house: House) -> Path:
    return house.hub_folder("tiny-mice-spikes")


def test_who_does_not_ask_has_none(built: House) -> None:
    assert not repository(built).exists()
    assert "Spike times" not in (built.hub_folder("tiny-mice") / "README.md").read_text()
    assert "spike_times" not in metadata_of(built)
    record = built.store.read(documents.published_path(MICE, built.settings))
    assert record is not None and b'spikes"' not in record.replace(b'"spikes":', b"")  # of totals
    verdict = judged(built)
    assert verdict.passed
    assert "nobody asked" in str(verdict.found)


@pytest.fixture(scope="module")
def with_spikes(tmp_path_factory: pytest.TempPathFactory, first_built: House) -> Iterator[House]:
    """The mice after a run that asked; nobody changes it."""
    with copy_of(first_built, tmp_path_factory.mktemp("spikes") / "copy") as made:
        assert made.publish(publish_spike_times=True).success
        yield made


@pytest.fixture
def changed(with_spikes: House, tmp_path: Path) -> Iterator[House]:
    """A copy to change."""
    with copy_of(with_spikes, tmp_path / "copy") as made:
        yield made


def test_a_run_that_asks_publishes_the_stored_files(built: House, with_spikes: House) -> None:
    house, before = with_spikes, published(built)
    after, folder = published(house), repository(house)
    staged = documents.staging_folder(house.settings, "tiny-mice-spikes")
    assert (after.inputs, after.shards) == (before.inputs, before.shards)
    assert after.spikes is not None
    assert (after.spikes.repository, after.spikes.sessions) == ("local/tiny-mice-spikes", 3)
    for number, key in enumerate(SESSIONS):
        file = folder / "spikes" / f"{key}.parquet"
        stored = Path(house.store.uri(f"{MICE.key}/spike_trains/{key}.parquet"))
        assert (staged / "spikes" / file.name).samefile(stored), "a link"
        assert file.read_bytes() == stored.read_bytes()
        for found, written in zip(spike_times(file), trains_of(number), strict=True):
            assert found.tobytes() == written.tobytes()
    segments = pq.read_table(folder / "segments" / "segments.parquet").to_pylist()
    rows = [(key, row.segment_id) for key, s in zip(SESSIONS, after.sessions, strict=True) for row in s.rows]
    assert [(s["file"][7:-8], s["segment_id"]) for s in segments] == rows
    assert {(s["bin_rule"], s["origin_s"], s["bin_width_s"]) for s in segments} == {("histogram", 0.0, 0.02)}
    assert pq.read_metadata(folder / "units" / "units.parquet").num_rows == after.totals.units
    hub = open_hub(house.settings)
    assert verify_publication(hub, "tiny-mice-spikes", staged) == []
    assert "local/tiny-mice-spikes" in (house.hub_folder("tiny-mice") / "README.md").read_text()
    assert metadata_of(house)["spike_times"] == str(folder)
    assert house.checks(KEY, "spike_times_give_the_counts")[0].passed


def test_later_runs_keep_them_until_one_is_told_not_to(changed: House) -> None:
    house = changed
    spikes, version = published(house).spikes, repository(house).resolve()
    assert spikes is not None
    assert house.publish(checks=False).success
    assert published(house).spikes == spikes
    assert repository(house).resolve() == version, "up to date"
    assert house.publish(publish_spike_times=False, checks=False).success
    assert published(house).spikes is None
    assert "tiny-mice-spikes" not in (house.hub_folder("tiny-mice") / "README.md").read_text()


def test_the_card_s_code_without_this_package_reads_them(with_spikes: House, tmp_path: Path) -> None:
    card = (repository(with_spikes) / "README.md").read_text()
    file = repository(with_spikes) / "spikes" / f"{SESSIONS[0]}.parquet"
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[1]
    of_a_clock = tmp_path / "clock.parquet"
    data = SpikeTrains(np.arange(7) / 30_000.0, np.array([3, 7]))
    write_recording(of_a_clock, Recording(data, (Unit(0, "a"), Unit(1, "a")), SessionFacts(), ()))
    for path in (file, of_a_clock):
        found: dict[str, Any] = {"file": path}
        exec(code, found)
        for read, ours in zip(found["trains"], spike_times(path), strict=True):
            assert np.asarray(read).tobytes() == ours.tobytes()
    assert set(pq.read_table(of_a_clock)["ticks_per_s"].to_pylist()) == {30_000.0}
    assert "10.48324/tiny.mice" in card
    assert "ticks.view(numpy.float64)" in card


def test_one_spike_in_another_bin_fails_the_check(changed: House) -> None:
    assert judged(changed).passed
    file = repository(changed).resolve() / "spikes" / f"{SESSIONS[1]}.parquet"
    recording = read_recording(file)
    recording.data.spike_times[3] += 0.02  # type: ignore[union-attr]
    file.unlink()  # a link to the store's
    write_recording(file, recording)
    verdict = judged(changed)
    assert (verdict.passed, verdict.found) == (False, f"other counts from the spike times of {SESSIONS[1]}")
    file.write_bytes(file.read_bytes()[:-9])
    assert not judged(changed).passed


def test_a_failure_before_the_card_that_links_to_them_leaves_the_component_as_it_was(
    built_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = built_house()
    before, publish = published(house), LocalHub.publish

    def fail(hub: LocalHub, name: str, *rest: Any) -> Publication:
        if name == "tiny-mice":
            raise HubError("the disk is gone")
        return publish(hub, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(LocalHub, "publish", fail)
        assert "the disk is gone" in failure_of(house.publish(publish_spike_times=True))
    assert published(house) == before
    assert "Spike times" not in (house.hub_folder("tiny-mice") / "README.md").read_text()
    made = repository(house).resolve()
    assert house.publish(publish_spike_times=True, checks=False).success
    assert repository(house).resolve() == made
    assert judged(house).found == f"the counts of {', '.join(SESSIONS)}"


def test_a_row_that_asks_makes_one_publication_due_and_no_plan(built_house: Callable[..., House]) -> None:
    made = built_house()
    house = House(made.settings, made.instance, (OPTED_IN,))
    before, pile = published(house), pile_due(house.store, NEURAL_PILE, house.datasets, house.settings)
    due = dataset_due(house.store, OPTED_IN, house.settings, 1.0)
    assert (due.sessions, due.why) == ({}, "to publish with its spike times")
    assert house.publish(checks=False).success
    assert dataset_due(house.store, OPTED_IN, house.settings, 1.0).publish is None
    assert repository(house).is_dir()
    assert published(house).inputs == before.inputs
    assert pile_due(house.store, NEURAL_PILE, house.datasets, house.settings) == pile


def test_what_cannot_be_published_is_refused_before_anything_is_sent(built_house: Callable[..., House]) -> None:
    house = built_house()
    before = published(house)
    other = repository(house) / "data"
    other.mkdir(parents=True)
    (other / "train-0.parquet").write_bytes(b"somebody's")
    assert "holds rows of spike counts" in failure_of(house.publish(publish_spike_times=True))
    key = f"{MICE.key}/spike_trains/{SESSIONS[0]}.json"
    record = documents.read_trains_record(house.store, MICE, house.settings, SESSIONS[0])
    assert record is not None
    write_record(house.store, key, record.model_copy(update={"inputs": "read again"}))
    assert f"e.g. {SESSIONS[0]}" in failure_of(house.publish(publish_spike_times=True))
    for session in SESSIONS:
        made = documents.read_trains_record(house.store, MICE, house.settings, session)
        counts = documents.read_counts_record(house.store, MICE, house.settings, session)
        assert made is not None and counts is not None
        ready = made.model_copy(update={"n_spikes": None, "inputs": counts.trains_inputs})
        write_record(house.store, f"{MICE.key}/spike_trains/{session}.json", ready)
    shutil.rmtree(repository(house))
    assert "has no spike times to publish" in failure_of(house.publish(publish_spike_times=True))
    assert published(house) == before
    assert read_record(house.store, documents.published_path(MICE, house.settings), ComponentRecord) == before
