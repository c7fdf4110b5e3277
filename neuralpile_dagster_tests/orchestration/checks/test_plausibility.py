"""Spike times that are not seconds of one clock are published as before, and a check says so with numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralpile_dagster.checks.dataset import sessions_resemble_each_other
from neuralpile_dagster.checks.model import Verdict
from neuralpile_dagster.checks.plausibility import PLAUSIBILITY, UNKNOWN
from neuralpile_dagster.records import CountsRecord, CountsStats
from neuralpile_dagster.session.own_files import bin_files
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster_tests.fixtures.cases import Case
from neuralpile_dagster_tests.fixtures.house import neuralpile
from neuralpile_dagster_tests.fixtures.sessions import put_session
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_units_nwb


def binned(path: Path, bin_width_s: float = 0.02) -> CountsStats:
    return bin_files([path], path.with_suffix(".parquet"), bin_width_s).stats


def made(folder: Path, trains: list[np.ndarray]) -> CountsStats:
    return binned(write_units_nwb(folder / "ses-1.nwb", trains))


def failed(stats: CountsStats) -> dict[str, Verdict]:
    verdicts = {name: check(stats) for name, check in PLAUSIBILITY.items()}
    return {name: verdict for name, verdict in verdicts.items() if not verdict.passed}


def test_times_relative_to_trials_are_dropped_and_the_share_is_stated(case: Case) -> None:
    stats = binned(case("trial_relative"))
    assert (stats.n_bins, stats.spikes_read, stats.dropped_negative) == (16, 4_800, 4_593)
    verdict = failed(stats)["spikes_are_in_bins"]
    assert verdict.found == "4,593 dropped (95.7%): 4,593 before time 0"
    assert verdict.details["dropped_share"] == 0.956875
    assert failed(stats)["plausible_clock"].details["falls"] == 6 * 19


def test_a_clock_that_is_reset_is_found_and_the_largest_fall_stated(case: Case) -> None:
    stats = binned(case("clock_resets"))
    assert set(failed(stats)) == {"plausible_clock"}
    verdict = failed(stats)["plausible_clock"]
    assert verdict.found == "8 spikes of 8 units are earlier than the one before, by up to 59.8 s"
    assert (verdict.details["falls"], verdict.details["largest_fall_s"]) == (8, pytest.approx(59.8, abs=0.05))


def test_sample_numbers_are_found(case: Case) -> None:
    stats = binned(case("samples_5min"), bin_width_s=20.0)
    assert stats.clock is not None
    assert stats.clock.whole_times == stats.spikes_read == 4_799
    verdict = failed(stats)["plausible_clock"]
    assert "all spike times are whole numbers" in verdict.found
    assert "a mean rate of 6.67e-05 Hz" in verdict.found
    assert "samples or ms" in verdict.remedy


def test_time_outside_obs_intervals_is_found_and_left_out_of_the_rate(case: Case) -> None:
    stats = binned(case("trial_gaps"))
    assert stats.clock is not None
    assert stats.observed_s == stats.clock.observed_s == pytest.approx(120, abs=0.2)
    assert stats.mean_rate_hz == pytest.approx(3.0, rel=0.01)
    verdict = failed(stats)["time_is_observed"]
    assert verdict.details["outside_obs_intervals_share"] == pytest.approx(0.892, abs=0.001)
    assert "89.2% of its time is outside obs_intervals" in verdict.found
    assert verdict.details["spikes_outside_obs_intervals"] == 0


def test_times_in_ms_are_found_by_their_rate(tmp_path: Path) -> None:
    stats = made(tmp_path, [train * 1_000 for train in poisson_trains(8, 20.0, 5.0)])
    verdict = failed(stats)["plausible_clock"]
    assert verdict.found.startswith("a mean rate of 0.005")
    assert verdict.details["whole_number_share"] < 0.01


def test_one_absurd_spike_is_found_and_where_it_is(tmp_path: Path) -> None:
    trains = poisson_trains(8, 60.0, 5.0)
    trains[3] = np.append(trains[3], 600.0)
    stats = made(tmp_path, trains)
    verdict = failed(stats)["plausible_clock"]
    assert verdict.found.startswith("the last 90% of the session hold less than 0.1% of its spikes (last spike at 600")
    assert stats.clock is not None
    assert stats.clock.last_spike_s == 600.0


def test_a_clock_that_starts_late_is_found_and_left_out_of_the_rate(tmp_path: Path) -> None:
    stats = made(tmp_path, [train + 540.0 for train in poisson_trains(8, 60.0, 5.0)])
    verdict = failed(stats)["time_is_observed"]
    assert verdict.found.startswith("90.0% of its bins are before the first spike, at 540.0 s")
    assert 59 < stats.observed_s < 60
    assert stats.mean_rate_hz == stats.spikes_kept / (8 * stats.observed_s)


def test_spikes_outside_the_intervals_of_their_unit_are_counted(tmp_path: Path) -> None:
    path = write_units_nwb(tmp_path / "ses-1.nwb", poisson_trains(4, 100.0, 5.0))
    inside = [(0.0, 40.0), (35.0, 50.0)]
    import h5py

    with h5py.File(path, "a") as file:
        file["units/obs_intervals"] = np.array(inside * 4)
        file["units/obs_intervals_index"] = np.arange(2, 9, 2)
    stats = binned(path)
    with h5py.File(path) as file:
        late = int((file["units/spike_times"][()] > 50.0).sum())
    assert failed(stats)["time_is_observed"].details["spikes_outside_obs_intervals"] == late
    assert stats.observed_s == 50.0


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> CountsStats:
    """Statistics of 8 units that fire at 5 Hz for a minute: nothing is odd about them."""
    stats = made(tmp_path_factory.mktemp("usual"), poisson_trains(8, 60.0, 5.0))
    assert failed(stats) == {}
    return stats


def other(stats: CountsStats, clock: dict[str, Any] | None = None, **changes: Any) -> CountsStats:
    """The same statistics with other values."""
    assert stats.clock is not None
    return stats.model_copy(update={"clock": stats.clock.model_copy(update=clock or {}), **changes})


def test_a_rate_that_no_neurons_have_is_found(usual: CountsStats) -> None:
    (verdict,) = failed(other(usual, spikes_kept=usual.spikes_kept * 30)).values()
    assert re.fullmatch(r"a mean rate of 1\d\d Hz \(0.02 to 100 are plausible\)", verdict.found)


@pytest.mark.parametrize(("spikes", "nan", "whole", "found"), [(99, 0, 99, 0), (100, 0, 100, 1), (103, 3, 100, 1)])
def test_whole_numbers_are_no_chance_from_a_hundred_times_on(
    usual: CountsStats, spikes: int, nan: int, whole: int, found: int
) -> None:
    stats = other(usual, {"whole_times": whole}, spikes_read=spikes, dropped_nan=nan)
    assert PLAUSIBILITY["plausible_clock"](stats).found.count("all spike times are whole numbers") == found


def test_spikes_outside_obs_intervals_are_found_where_hardly_any_time_is(usual: CountsStats) -> None:
    stated = {"intervals_stated": True, "observed_s": usual.duration_s * 0.95}
    assert failed(other(usual, {**stated, "outside_intervals": usual.spikes_read // 1000})) == {}
    (verdict,) = failed(other(usual, {**stated, "outside_intervals": usual.spikes_read // 100})).values()
    assert "(1.0%) are outside those of their unit" in verdict.found


def test_a_session_that_is_binned_from_its_first_spike_has_no_time_before_it(usual: CountsStats) -> None:
    verdict = PLAUSIBILITY["time_is_observed"](other(usual, {"start_s": 300.0, "first_spike_s": 300.0}))
    assert verdict.passed
    assert verdict.found == "0.0% of its bins are before the first spike, at 300.0 s"


def test_time_is_unobserved_only_where_intervals_are_stated(usual: CountsStats) -> None:
    check = PLAUSIBILITY["time_is_observed"]
    assert check(other(usual, {"observed_s": 1.0})).details["outside_obs_intervals_share"] == 0
    beyond = {"intervals_stated": True, "observed_s": usual.duration_s + 1e-9}  # the last spike may lie beyond the bins
    assert "; 0.0% of its time is outside obs_intervals" in check(other(usual, beyond)).found


def test_a_real_recording_raises_no_warning(shared_data: Path, tmp_path: Path) -> None:
    for path in sorted((shared_data / "recordings" / "990001").glob("*/*behavior+ecephys.nwb")):
        assert failed(bin_files([path], tmp_path / "rows.parquet").stats) == {}


def test_sessions_of_before_pass_and_say_that_it_was_not_recorded(tmp_path: Path) -> None:
    stats = put_session(LocalStore(tmp_path), "s1").stats
    assert stats.clock is None
    assert stats.observed_s == stats.duration_s
    assert PLAUSIBILITY["plausible_clock"](stats).found == UNKNOWN
    assert PLAUSIBILITY["time_is_observed"](stats).found == UNKNOWN
    assert all(PLAUSIBILITY[name](stats).passed for name in ("plausible_clock", "time_is_observed"))


def test_bin_prints_a_warning_for_each_check_that_fails(case: Case, tmp_path: Path) -> None:
    path = case("trial_relative")
    ran = neuralpile("bin", path, "-o", tmp_path / "rows.parquet")
    assert ran.code == 0
    warnings = [line for line in ran.err.splitlines() if line.startswith("Warning")]
    assert [line.split(":")[0] for line in warnings] == ["Warning (spikes_are_in_bins)", "Warning (plausible_clock)"]
    assert "4,593 dropped (95.7%)" in warnings[0]


def records(folder: Path, **odd: float) -> dict[str, CountsRecord]:
    """Five sessions of 100 bins and 99 spikes, and one more with other statistics."""
    store = LocalStore(folder)
    usual = {key: put_session(store, key, spikes_kept=99) for key in ("s1", "s2", "s3", "s4", "s5")}
    return {**usual, "odd": put_session(store, "odd", **{"spikes_kept": 99, **odd})}


def test_a_dataset_without_sessions_has_none_that_is_odd() -> None:
    assert sessions_resemble_each_other({}).passed


def test_sessions_alike_pass_and_the_medians_are_stated(tmp_path: Path) -> None:
    verdict = sessions_resemble_each_other(records(tmp_path))
    assert verdict.passed
    assert verdict.details == {"median_rate": 9.9, "median_length": 0.0333}


@pytest.mark.parametrize(
    ("odd", "found"),
    [
        ({"spikes_kept": 9}, "odd (rate 0.9 Hz, median 9.9)"),
        ({"spikes_kept": 1_100}, "odd (rate 110 Hz, median 9.9)"),
        ({"n_bins": 3_000, "spikes_kept": 2_970}, "odd (length 1 min, median 0.0333)"),
    ],
)
def test_a_session_far_from_the_median_of_its_dataset_is_named(
    tmp_path: Path, odd: dict[str, float], found: str
) -> None:
    verdict = sessions_resemble_each_other(records(tmp_path, **odd))
    assert not verdict.passed
    assert verdict.found == found
