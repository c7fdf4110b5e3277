"""Checks of one session: each passes on a right session and fails on a doctored one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.catalog.model import Dataset, Source
from neuralpile_dagster.checks import session as checks
from neuralpile_dagster.checks.model import Verdict
from neuralpile_dagster.checks.registry import SESSION_CHECKS, judge
from neuralpile_dagster.checks.session import SessionEvidence
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.recordings.manifest import Session
from neuralpile_dagster.recordings.model import BinnedCounts, Recording, SessionFacts, SpikeTrains, Unit, read_session
from neuralpile_dagster.records import CountsRecord, RowRecord
from neuralpile_dagster.session import build
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster.tables.rows import RowWriter
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_units_nwb

SESSION = Session(
    key="ses-1",
    subject_id="sub-A",
    session_id="ses-1",
    files=(ArchiveFile(path="sub-A/ses-1.nwb", size=1, file_id="1"),),
)


def make(folder: Path, trains: list[np.ndarray], max_tokens: int = 1_000) -> SessionEvidence:
    """Build a session of these spike times in a new store; what its checks look at."""
    store = LocalStore(folder / "store")
    settings = Settings(home=folder, store=str(store.root), max_tokens=max_tokens)
    file = LocalFile("sub-A/ses-1.nwb", write_units_nwb(folder / "ses-1.nwb", trains, subject_id="A"))
    recording = read_session("units", [file])
    trains_record = build.store_recording(store, "mice/spike_trains", SESSION, recording, "v1", "inputs")
    record = build.build_spike_counts(store, "mice/spike_counts", "ses-1", recording, trains_record, settings)
    return SessionEvidence(record, store, record.inputs, trains=trains_record)


@pytest.fixture(scope="module")
def first_good(tmp_path_factory: pytest.TempPathFactory) -> SessionEvidence:
    """A session of 8 units and 499 bins in four segments; nobody changes it."""
    return make(tmp_path_factory.mktemp("good"), poisson_trains(8, 10.0))


@pytest.fixture
def good(first_good: SessionEvidence, tmp_path: Path) -> SessionEvidence:
    """A copy of it, to damage."""
    store = first_good.store
    assert isinstance(store, LocalStore)
    return replace(first_good, store=LocalStore(shutil.copytree(store.root, tmp_path / "store")))


def doctored(evidence: SessionEvidence, **stats: Any) -> SessionEvidence:
    record = evidence.record
    return replace(evidence, record=record.model_copy(update={"stats": record.stats.model_copy(update=stats)}))


def rewritten(evidence: SessionEvidence, change: Callable[[np.ndarray, int], tuple[np.ndarray, str, str]]) -> Any:
    """The evidence after every row of the counts file was replaced by what ``change`` makes of it."""
    path = Path(evidence.store.uri(evidence.record.file.key))
    from neuralpile_dagster.tables.rows import RowReader

    with RowReader(path) as reader:
        rows = [reader.row(number) for number in range(reader.n_rows)]
    with RowWriter(path) as writer:
        for number, row in enumerate(rows):
            counts, session_id, segment_id = change(row.counts, number)
            writer.write(counts, row.subject_id, session_id, segment_id)
    return checks.rows_follow_the_contract(evidence)


def test_a_right_session_passes_every_check(good: SessionEvidence) -> None:
    verdicts = judge("spike_counts", good)
    assert {name: v.passed for name, v in verdicts.items()} == {check.name: True for check in SESSION_CHECKS}


def test_a_spike_that_is_neither_kept_nor_counted_as_lost_fails(good: SessionEvidence) -> None:
    stats = good.record.stats
    verdict = checks.spikes_conserved(doctored(good, spikes_kept=stats.spikes_kept - 1))
    assert (verdict.passed, verdict.expected, verdict.found) == (False, stats.spikes_read, stats.spikes_read - 1)
    assert verdict.details["kept"] == stats.spikes_kept - 1


def test_spikes_that_are_counted_as_lost_do_not_fail_conservation(tmp_path: Path) -> None:
    trains = [np.array([-1.0, 0.5, np.nan, 9.0]), np.full(300, 3.0)]
    evidence = make(tmp_path, trains)
    verdict = checks.spikes_conserved(evidence)
    assert verdict.passed
    assert verdict.details["dropped_negative"] == verdict.details["dropped_nan"] == 1
    assert verdict.details["lost_to_saturation"] == 45


def test_a_file_that_lost_a_row_fails_the_contract(good: SessionEvidence) -> None:
    record = good.record
    short = record.model_copy(update={"rows": (*record.rows, record.rows[-1])})
    verdict = checks.rows_follow_the_contract(SessionEvidence(short, good.store, good.inputs_now))
    assert not verdict.passed
    assert f"{len(record.rows)} rows" in verdict.found


def test_a_unit_less_in_one_segment_fails_the_contract(good: SessionEvidence) -> None:
    verdict = rewritten(good, lambda counts, n: (counts[: len(counts) - (n == 1)], "ses-1", f"segment_{n}"))
    assert not verdict.passed
    assert "segment_1" in verdict.found


@pytest.mark.parametrize("row", [0, 3])
def test_counts_of_another_shape_with_as_many_tokens_fail_the_contract(good: SessionEvidence, row: int) -> None:
    verdict = rewritten(good, lambda counts, n: (counts.T if n == row else counts, "ses-1", f"segment_{n}"))
    assert not verdict.passed
    assert f"wrong: segment_{row}" in verdict.found


def test_a_record_of_other_units_than_both_files_hold_fails_the_contract(good: SessionEvidence) -> None:
    verdict = checks.rows_follow_the_contract(doctored(good, n_units=good.record.stats.n_units + 1))
    assert not verdict.passed
    assert verdict.expected.startswith("9 units")
    assert verdict.found == "8 units in the units table, 4 rows"


def test_a_row_of_another_session_fails_the_contract(good: SessionEvidence) -> None:
    verdict = rewritten(good, lambda counts, n: (counts, "ses-2" if n == 1 else "ses-1", f"segment_{n}"))
    assert not verdict.passed
    assert "segment_1" in verdict.found


def test_rows_of_another_subject_fail_the_contract(good: SessionEvidence) -> None:
    other = good.record.model_copy(update={"subject_id": "sub-B"})
    verdict = checks.rows_follow_the_contract(replace(good, record=other))
    assert not verdict.passed
    assert "wrong: segment_0, segment_1, segment_2, segment_3" in verdict.found


def test_several_rows_in_one_row_group_fail_both_checks_of_rows(good: SessionEvidence) -> None:
    path = good.store.uri(good.record.file.key)
    pq.write_table(pq.read_table(path), path)
    for check in (checks.rows_follow_the_contract, checks.segments_cover_the_session):
        verdict = check(good)
        assert not verdict.passed
        assert "other row groups than rows; found: 1 groups, 4 rows" in verdict.found


def test_a_damaged_page_of_ids_fails_both_checks_of_rows(good: SessionEvidence) -> None:
    path = Path(good.store.uri(good.record.file.key))
    column = pq.ParquetFile(path).metadata.row_group(1).column(3)
    assert column.path_in_schema == "segment_id"
    content = bytearray(path.read_bytes())
    content[column.data_page_offset : column.data_page_offset + column.total_compressed_size] = b"\xff" * (
        column.total_compressed_size
    )
    path.write_bytes(content)
    for check in (checks.rows_follow_the_contract, checks.segments_cover_the_session):
        verdict = check(good)
        assert not verdict.passed
        assert good.record.file.key in verdict.found


def test_segments_in_another_order_in_the_file_fail_coverage(good: SessionEvidence) -> None:
    rewritten(good, lambda counts, n: (counts, "ses-1", f"segment_{[1, 0, 2, 3][n]}"))
    verdict = checks.segments_cover_the_session(good)
    assert not verdict.passed
    assert "not in order" in verdict.found


def test_a_file_of_another_schema_fails_the_contract_and_says_what_it_holds(good: SessionEvidence) -> None:
    units = Path(good.store.uri(good.record.units_file.key))
    Path(good.store.uri(good.record.file.key)).write_bytes(units.read_bytes())
    verdict = checks.rows_follow_the_contract(good)
    assert not verdict.passed
    assert "other columns" in verdict.found


def test_a_units_table_with_other_units_than_the_rows_fails_the_contract(good: SessionEvidence, tmp_path: Path) -> None:
    other = make(tmp_path / "other", poisson_trains(9, 10.0))
    Path(good.store.uri(good.record.units_file.key)).write_bytes(
        Path(other.store.uri(other.record.units_file.key)).read_bytes()
    )
    verdict = checks.rows_follow_the_contract(good)
    assert not verdict.passed
    assert "9 units in the units table" in verdict.found


@pytest.mark.parametrize("change", ["a segment is missing", "a segment is longer", "two change places", "tokens"])
def test_segments_that_are_not_those_of_the_rule_fail_coverage(good: SessionEvidence, change: str) -> None:
    record = good.record
    rows: tuple[RowRecord, ...] = record.rows
    first, second, *rest = rows
    made: dict[str, CountsRecord] = {
        "a segment is missing": record.model_copy(update={"rows": rows[:-1]}),
        "a segment is longer": record.model_copy(
            update={"rows": (first.model_copy(update={"n_bins": first.n_bins + 1}), second, *rest)}
        ),
        "two change places": record.model_copy(update={"rows": (second, first, *rest)}),
        "tokens": doctored(good, tokens=record.stats.tokens + 1).record,
    }
    verdict = checks.segments_cover_the_session(SessionEvidence(made[change], good.store, good.inputs_now))
    assert not verdict.passed
    assert verdict.expected != verdict.found


@pytest.mark.parametrize("which", ["file", "units_file"])
def test_a_flipped_byte_in_a_stored_file_is_found_and_the_file_named(good: SessionEvidence, which: str) -> None:
    key = getattr(good.record, which).key
    path = Path(good.store.uri(key))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    verdict = checks.file_is_as_recorded(good)
    assert not verdict.passed
    assert key in verdict.found


def with_other_trains(evidence: SessionEvidence, change: Callable[[Recording], object]) -> Verdict:
    """The verdict after the spike trains were stored again, changed, with a record that is right about the file."""
    trains = evidence.trains
    assert trains is not None
    recording = build.load_recording(evidence.store, trains)
    change(recording)
    stored = build.store_recording(evidence.store, "mice/others", SESSION, recording, "v1", trains.inputs)
    return checks.counts_match_spike_trains(replace(evidence, trains=stored))


def test_stored_spikes_that_give_other_counts_fail(good: SessionEvidence) -> None:
    def leave_out_a_spike(recording: Recording) -> None:
        recording.data.spike_times[5] = np.nan

    def swap_two_bins(recording: Recording) -> None:
        times = recording.data.spike_times[: recording.data.ends[0]]
        times[:] = np.sort((times + 4.0) % 9.9)

    assert with_other_trains(good, lambda recording: None).found == "units 0 to 7: as stored"
    verdict = with_other_trains(good, leave_out_a_spike)
    assert not verdict.passed
    assert verdict.found.endswith("totals in the units table")
    verdict = with_other_trains(good, swap_two_bins)
    assert (verdict.passed, verdict.found.startswith("units 0 to 7: other counts in segment_")) == (False, True)


def test_spike_trains_that_are_damaged_or_missing_in_the_store_fail(good: SessionEvidence) -> None:
    assert good.trains is not None
    path = Path(good.store.uri(good.trains.file.key))
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert "another sha256" in checks.counts_match_spike_trains(good).found
    path.unlink()
    verdict = checks.counts_match_spike_trains(good)
    assert not verdict.passed
    assert good.trains.file.key in verdict.found


def test_counts_of_other_spike_trains_are_not_compared_with_these(good: SessionEvidence) -> None:
    assert good.trains is not None
    newer = replace(good, trains=good.trains.model_copy(update={"inputs": "other"}))
    assert checks.counts_match_spike_trains(newer).found == "not compared: the counts are those of other spike trains"


@pytest.mark.parametrize("kind", ["from_first_spike", "ready counts", "ready counts in wider bins"])
def test_spikes_of_every_kind_of_recording_are_binned_again(tmp_path: Path, kind: str) -> None:
    trains = poisson_trains(20, 10.0)
    times, ends = np.concatenate(trains) - 3.0, np.cumsum([len(train) for train in trains])
    data: SpikeTrains | BinnedCounts = SpikeTrains(times, ends, "from_first_spike")
    if kind != "from_first_spike":
        counts = np.random.default_rng(0).poisson(2, (20, 500)).astype(np.uint8)
        data = BinnedCounts(counts, 0.02 if kind == "ready counts" else 0.01, int(counts.sum()))
    store, settings = LocalStore(tmp_path), Settings(home=tmp_path, store=str(tmp_path), max_tokens=1_000)
    recording = Recording(data, tuple(Unit(k, "a.nwb") for k in range(20)), SessionFacts())
    stored = build.store_recording(store, "mice/spike_trains", SESSION, recording, "v1", "inputs")
    record = build.build_spike_counts(store, "mice/spike_counts", "ses-1", recording, stored, settings)
    evidence = SessionEvidence(record, store, record.inputs, trains=stored)
    assert checks.counts_match_spike_trains(evidence).found.endswith("as stored")
    other = doctored(evidence, clock=None)
    assert checks.counts_match_spike_trains(other).found == (
        checks.UNKNOWN if kind == "from_first_spike" else checks.counts_match_spike_trains(evidence).found
    )


def test_counts_that_were_made_from_other_inputs_fail(good: SessionEvidence) -> None:
    verdict = checks.source_is_as_listed(SessionEvidence(good.record, good.store, "0123456789abcdef0123"))
    assert not verdict.passed
    assert verdict.expected == "0123456789abcdef"
    assert verdict.found == good.record.inputs[:16]


def test_bins_over_255_spikes_fail_and_say_how_many_spikes_were_lost(tmp_path: Path) -> None:
    burst = np.sort(np.random.default_rng(0).uniform(1.0, 1.02, 300))
    verdict = checks.no_saturated_bins(make(tmp_path, [burst, np.array([2.0])]))
    assert (verdict.passed, verdict.found) == (False, 1)
    assert verdict.details == {"largest_count": 255, "spikes_lost": 45}


def test_more_than_a_fifth_of_silent_units_fails(tmp_path: Path) -> None:
    spikes = np.array([0.5, 1.0])
    assert checks.few_silent_units(make(tmp_path / "1", [*[spikes] * 4, np.array([])])).passed
    verdict = checks.few_silent_units(make(tmp_path / "2", [*[spikes] * 3, np.array([])]))
    assert not verdict.passed
    assert verdict.found == "1 silent unit (25.0%)"


def test_rates_above_1_khz_fail_and_name_the_rows_with_their_bins(tmp_path: Path) -> None:
    calm = np.linspace(0.001, 4.0, 50)
    edge = 1.0 + np.arange(20) * 0.0009
    fast = np.concatenate([1.0 + np.arange(21) * 0.0009, 2.0 + np.arange(25) * 0.0007])
    assert checks.plausible_rates(make(tmp_path / "1", [calm, edge])).passed
    verdict = checks.plausible_rates(make(tmp_path / "2", [calm, fast]))
    assert not verdict.passed
    assert verdict.found == "2 bins in 1 unit"
    assert verdict.details == {"rows_and_bins": "row 1: 2 bins"}


def test_two_spikes_of_a_unit_at_one_time_fail_and_of_two_units_do_not(tmp_path: Path) -> None:
    assert checks.no_duplicate_spikes(make(tmp_path / "1", [np.array([1.0, 2.0]), np.array([1.0, 3.0])])).passed
    verdict = checks.no_duplicate_spikes(make(tmp_path / "2", [np.array([1.0, 1.0, 1.0, 2.0]), np.array([3.0])]))
    assert (verdict.passed, verdict.found) == (False, 2)
    assert verdict.details["share"] == 0.4


def facts(evidence: SessionEvidence, catalog: str | None = "mouse", **stated: str | None) -> SessionEvidence:
    """The same session, with these facts in its file and this species in the catalog."""
    record = evidence.record
    record = record.model_copy(update={"facts": record.facts.model_copy(update=stated)})
    row = Dataset(name="mice", title="Mice", source=Source(id="000000"), species=catalog)
    return replace(evidence, record=record, dataset=row)


@pytest.mark.parametrize(
    "stated",
    [
        {"subject": "A", "species": "Mus musculus"},
        {"subject": "sub-a", "species": "House mouse"},
        {"subject": None, "species": "http://purl.obolibrary.org/obo/NCBITaxon_10090"},
        {"subject": " A_", "species": None},
    ],
    ids=str,
)
def test_the_same_subject_and_species_may_be_written_in_many_ways(
    good: SessionEvidence, stated: dict[str, str | None]
) -> None:
    assert checks.subject_and_species_agree(facts(good, **stated)).passed


def test_a_species_that_no_list_names_agrees_with_itself_only(good: SessionEvidence) -> None:
    assert checks.subject_and_species_agree(facts(good, "Octodon degus", species="octodon degus")).passed
    assert not checks.subject_and_species_agree(facts(good, "Octodon degus", species="Mus musculus")).passed
    assert checks.subject_and_species_agree(facts(good, None, species="Octodon degus")).passed


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        (
            {"subject": "r02", "species": "Mus musculus"},
            "path: subject sub-A; file: subject r02, species Mus musculus; catalog: species mouse",
        ),
        ({"species": "Rattus norvegicus"}, "file: subject A, species Rattus norvegicus; catalog: species mouse"),
        ({"species": "Homo sapiens"}, "species Homo sapiens; catalog: species mouse"),
    ],
    ids=["another subject", "a rat", "a human"],
)
def test_a_file_of_another_subject_or_species_is_named_beside_path_and_catalog(
    good: SessionEvidence, stated: dict[str, str | None], found: str
) -> None:
    verdict = judge("spike_counts", facts(good, **stated))["subject_and_species_agree"]
    assert not verdict.passed
    assert found in verdict.found
    assert "exclude" in verdict.remedy
