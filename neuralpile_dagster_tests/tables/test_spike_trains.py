from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuralpile_dagster.errors import TableError
from neuralpile_dagster.recordings.model import BinnedCounts, Recording, SessionFacts, SpikeTrains, Unit
from neuralpile_dagster.tables import spike_trains as tables
from neuralpile_dagster.tables.spike_trains import (
    RATES_HZ,
    from_ticks,
    read_bin_rule,
    read_recording,
    read_units_near,
    to_ticks,
    write_recording,
)
from neuralpile_dagster_tests.fixtures.damaging import within

FACTS = SessionFacts(subject="Cori", sex="F", age="P90D", start_time="2020-01-01T12:00:00+01:00")
ANY_BITS = hnp.arrays(np.int64, st.integers(0, 40)).map(lambda bits: bits.view(np.float64))
CLOCKS = st.tuples(st.sampled_from(RATES_HZ), st.lists(st.integers(-(10**6), 10**12), max_size=40)).map(
    lambda clock: np.array(sorted(clock[1]), np.float64) / clock[0]
)
AWKWARD = st.lists(st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e300, 5e-324, 0.1, 3.0])).map(np.array)


def bits(times: np.ndarray) -> list[int]:
    return times.astype(np.float64).view(np.int64).tolist()


def recording(trains: list[np.ndarray], **changes: Any) -> Recording:
    times = np.concatenate([np.zeros(0), *trains])
    units = tuple(Unit(unit_id=k, file="a.nwb") for k in range(len(trains)))
    ends = np.cumsum([len(train) for train in trains], dtype=np.int64)
    return Recording(**{"data": SpikeTrains(times, ends), "units": units, "facts": FACTS} | changes)


def there_and_back(path: Path, before: Recording) -> Recording:
    write_recording(path, before)
    return read_recording(path)


@settings(max_examples=100, deadline=None)
@given(st.one_of(ANY_BITS, CLOCKS, AWKWARD))
def test_ticks_give_back_every_bit(times: np.ndarray):
    times = times.astype(np.float64)
    ticks, rate = to_ticks(times)
    again = np.empty_like(times)
    from_ticks(ticks, rate, again)
    assert bits(again) == bits(times)


@pytest.mark.parametrize("rate", RATES_HZ)
def test_times_of_a_clock_become_its_ticks(rate: float):
    ticks = np.unique(np.random.default_rng(0).integers(0, int(9000 * rate), 5000))
    found, clock = to_ticks(ticks / rate)
    assert clock is not None
    assert clock <= rate
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found / clock, ticks / rate)


def test_one_time_off_the_clock_keeps_the_bit_patterns():
    times = np.arange(1000) / 30_000
    times[777] = math.nextafter(times[777], 1)
    assert to_ticks(times)[1] is None


@settings(max_examples=30, deadline=None)
@given(trains=st.lists(st.one_of(ANY_BITS, CLOCKS, AWKWARD), max_size=6))
def test_spike_trains_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, trains: list[np.ndarray]):
    before = recording([train.astype(np.float64) for train in trains])
    after = there_and_back(tmp_path_factory.mktemp("trains") / "x.parquet", before)
    assert isinstance(after.data, SpikeTrains)
    assert bits(after.data.spike_times) == bits(before.data.spike_times)
    assert after.data.ends.tolist() == before.data.ends.tolist()
    assert after.data.ends.dtype == np.int64
    assert (after.units, after.facts, after.notes) == (before.units, before.facts, ())


def test_units_facts_notes_and_bin_rule_come_back(tmp_path: Path):
    units = (
        Unit(2**40, "a.nwb", "CA1", "units.location", "probe A", "good", "pyramidal", ((0.1, 0.5), (1.0, 1.7))),
        Unit(-3, "b.nwb", obs_intervals=()),
        Unit(0, "b.nwb"),
    )
    data = SpikeTrains(np.array([0.5, 0.25]), np.array([1, 1, 2]), "from_first_spike")
    before = Recording(data, units, FACTS, ("a column was left out",))
    after = there_and_back(tmp_path / "x.parquet", before)
    assert (after.units, after.facts, after.notes) == (units, FACTS, before.notes)
    assert isinstance(after.data, SpikeTrains)
    assert after.data.bin_rule == "from_first_spike"


def test_row_groups_are_small_and_do_not_change_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "GROUP_VALUES", 100)
    rng = np.random.default_rng(0)
    before = recording([np.sort(rng.uniform(0, 9, n)) for n in (30, 0, 80, 500, 0, 0, 7, 99, 1)])
    after = there_and_back(tmp_path / "x.parquet", before)
    assert pq.ParquetFile(tmp_path / "x.parquet").num_row_groups == 5
    assert isinstance(after.data, SpikeTrains)
    assert bits(after.data.spike_times) == bits(before.data.spike_times)
    assert after.data.ends.tolist() == before.data.ends.tolist()


def test_times_on_no_clock_are_written_without_a_copy_and_others_are_left_as_they_were(tmp_path: Path):
    rng = np.random.default_rng(0)
    before = recording([np.sort(rng.uniform(0, 900, 200_000)) for _ in range(4)])
    write_recording(tmp_path / "first.parquet", before)  # imports
    with within(500_000):  # of 6.4 MB
        write_recording(tmp_path / "x.parquet", before)
    mixed = recording([rng.uniform(0, 9, 50), np.arange(50) / 30_000, rng.uniform(0, 9, 50)])
    assert isinstance(mixed.data, SpikeTrains)
    kept = mixed.data.spike_times.copy()
    assert there_and_back(tmp_path / "mixed.parquet", mixed).units == mixed.units
    np.testing.assert_array_equal(mixed.data.spike_times, kept)


def test_ready_made_counts_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "GROUP_VALUES", 100)
    counts = np.random.default_rng(0).poisson(1, (7, 60)).astype(np.uint8)
    data = BinnedCounts(counts, 0.02, spikes_read=500, missing_bins=3, saturated_bins=1, lost_to_saturation=9)
    before = recording([np.zeros(0)] * 7, data=data)
    after = there_and_back(tmp_path / "x.parquet", before)
    assert isinstance(after.data, BinnedCounts)
    np.testing.assert_array_equal(after.data.counts, counts)
    assert after.data.counts.dtype == np.uint8
    assert vars(after.data) | {"counts": 0} == vars(data) | {"counts": 0}
    assert after.units == before.units


@pytest.mark.parametrize("unit", [0, 3, 6, 6 + 7 * 4])
@pytest.mark.parametrize("ready", [False, True])
def test_a_few_units_are_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: int, ready: bool):
    monkeypatch.setattr(tables, "GROUP_VALUES", 100)  # two units or so
    rng = np.random.default_rng(0)
    trains = [rng.uniform(0, 9, 40) if k % 2 else np.arange(0, 50 * k) / 30_000 for k in range(7)]
    counts = rng.poisson(1, (7, 30)).astype(np.uint8)
    before = recording([np.zeros(0)] * 7, data=BinnedCounts(counts, 0.02, 500)) if ready else recording(trains)
    write_recording(tmp_path / "x.parquet", before)
    first, few = read_units_near(tmp_path / "x.parquet", "x", unit, 2)
    n_units = len(few.units)
    assert 1 <= n_units <= 2 and first <= unit % 7 < first + n_units
    assert few.units == before.units[first : first + n_units]
    if isinstance(few.data, BinnedCounts):
        np.testing.assert_array_equal(few.data.counts, counts[first : first + n_units])
    else:
        found = np.split(few.data.spike_times, few.data.ends[:-1])
        assert [bits(train) for train in found] == [bits(train) for train in trains[first : first + n_units]]


@pytest.mark.parametrize(("on_a_clock", "codec"), [(True, "ZSTD"), (False, "UNCOMPRESSED")])
def test_only_what_becomes_smaller_is_compressed(tmp_path: Path, on_a_clock: bool, codec: str):
    times = np.sort(np.random.default_rng(0).uniform(0, 900, 5_000))
    before = recording([np.rint(times * 30_000) / 30_000 if on_a_clock else times, np.zeros(0)])
    after = there_and_back(tmp_path / "x.parquet", before)
    assert isinstance(after.data, SpikeTrains)
    assert bits(after.data.spike_times) == bits(before.data.spike_times)
    group = pq.read_metadata(tmp_path / "x.parquet").row_group(0)
    codecs = {group.column(k).path_in_schema: group.column(k).compression for k in range(group.num_columns)}
    assert codecs.pop("ticks.list.element") == codec
    assert set(codecs.values()) == {"ZSTD"}


def test_the_same_recording_gives_the_same_bytes(tmp_path: Path):
    before = recording([np.arange(500) / 30_000, np.random.default_rng(0).uniform(0, 9, 300)])
    for name in ("a", "b"):
        write_recording(tmp_path / name, before)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("session", ["sub-A2929/sub-A2929_ses-200711", "sub-A8604/sub-A8604_ses-211122"])
def test_real_spike_trains_come_back_in_less_than_half_their_size(shared_data: Path, tmp_path: Path, session: str):
    with h5py.File(shared_data / "recordings" / "990001" / f"{session}_behavior+ecephys.nwb") as file:
        times, ends = file["units/spike_times"][()], file["units/spike_times_index"][()].astype(np.int64)
    before = recording(np.split(times, ends[:-1]))
    after = there_and_back(tmp_path / "x.parquet", before)
    assert isinstance(after.data, SpikeTrains)
    assert bits(after.data.spike_times) == bits(times)
    assert (tmp_path / "x.parquet").stat().st_size < times.nbytes / 2


def test_units_and_data_of_different_number_are_not_written(tmp_path: Path):
    with pytest.raises(ValueError, match="2 units described, 1 recorded"):
        write_recording(tmp_path / "x", recording([np.array([0.1])], units=(Unit(0, "a"), Unit(1, "a"))))


def claim(path: Path, **claims: Any) -> None:
    """Change what a stored recording says of itself; its rows stay as they are."""
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"neuralpile.recording"]) | claims
    pq.write_table(table.replace_schema_metadata({b"neuralpile.recording": json.dumps(facts)}), path)


@pytest.mark.parametrize("n_spikes", [-1, 0, 3, 5, 6, 1 << 40])
def test_a_recording_that_claims_more_or_fewer_spikes_than_it_holds_is_damaged(tmp_path: Path, n_spikes: int):
    """A unit without spikes counts as a value in Parquet's own numbers: five or six spikes might be there by them."""
    path = tmp_path / "x.parquet"
    write_recording(path, recording([np.array([0.1, 0.2]), np.zeros(0), np.zeros(0), np.array([0.3, 0.4])]))
    claim(path, n_spikes=n_spikes)
    with pytest.raises(TableError, match=rf"x\.parquet is damaged; found: .* values; expected: {n_spikes:,} values"):
        read_recording(path)


@pytest.mark.parametrize("n_bins", [-60, 59, 61, 1 << 40])
def test_counts_that_claim_more_or_fewer_bins_than_they_hold_are_damaged(tmp_path: Path, n_bins: int):
    path = tmp_path / "x.parquet"
    data = BinnedCounts(np.ones((7, 60), np.uint8), 0.02, spikes_read=420)
    write_recording(path, recording([np.zeros(0)] * 7, data=data))
    claim(path, n_bins=n_bins)
    with pytest.raises(TableError, match=rf"x\.parquet is damaged; found: .* values; expected: {7 * n_bins:,} values"):
        read_recording(path)


def test_a_flipped_bit_is_never_read_as_other_spikes(tmp_path: Path):
    before = recording([np.arange(400) / 30_000, np.random.default_rng(0).uniform(0, 9, 300)])
    write_recording(tmp_path / "x.parquet", before)
    whole = (tmp_path / "x.parquet").read_bytes()
    refused = 0
    for position in np.random.default_rng(1).integers(0, len(whole), 300):
        content = bytearray(whole)
        content[position] ^= 1 << int(position % 8)
        (tmp_path / "y.parquet").write_bytes(content)
        try:
            data = read_recording(tmp_path / "y.parquet").data
        except TableError as error:
            assert "y.parquet" in str(error)
            refused += 1
        else:
            assert bits(data.spike_times) == bits(before.data.spike_times)
    assert refused > 100


def test_another_table_is_refused_by_name(tmp_path: Path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(TableError, match=r"other\.parquet is not a stored recording"):
        read_recording(tmp_path / "other.parquet")


def test_the_rule_of_binning_is_read_from_a_footer_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    trains = SpikeTrains(np.array([1.0, 2.0]), np.array([2]), "from_first_spike")
    write_recording(file, recording([trains.spike_times], data=trains))
    assert read_bin_rule(file, "a.parquet") == "from_first_spike"
    write_recording(file, recording([np.zeros(3)], data=BinnedCounts(np.zeros((1, 3), np.uint8), 0.02, 0)))
    with pytest.raises(TableError, match=r"a\.parquet"):
        read_bin_rule(file, "a.parquet")
