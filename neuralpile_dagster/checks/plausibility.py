"""Checks of whether a session's spike times can be what they claim: seconds of one clock, kept, and observed.

Each takes the statistics of one session, so that `neuralpile bin` warns of the same things as the UI. All of them warn:
counts stay as they are. One function is one check, listed in `registry`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neuralpile_dagster.checks.model import Verdict
from neuralpile_dagster.records import CountsStats

DROPPED_SHARE = 0.01
"""Share of spikes without a bin above which a person should look."""
RATES_HZ = (0.02, 100.0)
"""Mean rate of the units that fire at all; no dataset of the pile is near either end."""
WHOLE_SPIKES = 100
"""Spikes from which "all of them are whole numbers" cannot be chance."""
TAIL_SHARE, TAIL_SPIKES = 0.2, 0.001
"""Share of a session's length, at its end, that may hold less than that share of its spikes."""
UNOBSERVED_SHARE = 0.1
"""Share of a session before its first spike, or outside its obs_intervals, above which a person should look."""
OUTSIDE_SHARE = 0.001
"""Share of spikes outside the obs_intervals of their unit above which the two contradict each other."""
UNKNOWN = "not recorded when the session was made; remake it to know"


def spikes_are_in_bins(stats: CountsStats) -> Verdict:
    """At most 1 % of the spikes is dropped, for whatever reason."""
    share = stats.dropped / max(stats.spikes_read, 1)
    reasons = {
        "before time 0": stats.dropped_negative,
        "at NaN": stats.dropped_nan,
        "after the last bin": stats.dropped_beyond,
    }
    why = ", ".join(f"{number:,} {reason}" for reason, number in reasons.items() if number)
    return Verdict(
        passed=share <= DROPPED_SHARE,
        expected=f"at most {DROPPED_SHARE:.0%} of {stats.spikes_read:,} spikes dropped",
        found=f"{stats.dropped:,} dropped ({share:.1%})" + (f": {why}" if why else ""),
        remedy="spikes before time 0 are not binned: check that spike times are on the session's clock, and not "
        "relative to trials",
        details={"dropped_share": round(share, 6)},
    )


def plausible_clock(stats: CountsStats) -> Verdict:
    """Spike times look like seconds of one clock that runs forward and ends where the recording ends."""
    clock, expected = stats.clock, "rising seconds with fractions, a plausible mean rate, no last spike far off"
    if clock is None:
        return Verdict(True, expected, UNKNOWN)
    tail = _tail_share(stats.activity)
    rate = stats.mean_rate_hz * stats.n_units / max(stats.n_units - stats.silent_units, 1)
    whole = clock.whole_times / max(stats.spikes_read - stats.dropped_nan, 1)
    found, remedies = [], []
    if clock.falls:
        found.append(
            f"{clock.falls:,} spikes of {clock.falling_units:,} units are earlier than the one before, by up to "
            f"{clock.largest_fall_s:,.1f} s"
        )
        remedies.append("times that fall back overlay parts of the session: look for a clock that was reset")
    if whole == 1 and stats.spikes_read >= WHOLE_SPIKES:
        found.append("all spike times are whole numbers")
        remedies.append("they may be samples or ms: spike times must be in seconds")
    if tail > TAIL_SHARE:
        found.append(
            f"the last {tail:.0%} of the session hold less than {TAIL_SPIKES:.1%} of its spikes (last spike at "
            f"{clock.last_spike_s:,.1f} s)"
        )
        remedies.append("look at the last spikes: an invalid time makes a session longer")
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        found.append(f"a mean rate of {rate:.3g} Hz ({RATES_HZ[0]:g} to {RATES_HZ[1]:g} are plausible)")
        remedies.append("check the unit of time: spike times must be in seconds")
    return Verdict(
        passed=not found,
        expected=expected,
        found="; ".join(found) or f"rising to {clock.last_spike_s:,.1f} s, {rate:.2f} Hz per active unit",
        remedy="; ".join(remedies),
        details={
            "falls": clock.falls,
            "largest_fall_s": round(clock.largest_fall_s, 3),
            "whole_number_share": round(whole, 4),
            "quiet_end_share": round(tail, 4),
            "mean_rate_of_active_units_hz": round(rate, 6),
        },
    )


def _tail_share(activity: tuple[int, ...]) -> float:
    """Share of the session after which it has less than `TAIL_SPIKES` of its spikes; known where the clock is."""
    remaining = np.cumsum(np.asarray(activity)[::-1])[::-1]  # from each part to the end
    quiet = int(np.count_nonzero(remaining <= TAIL_SPIKES * remaining[0]))
    return quiet / len(activity)


def time_is_observed(stats: CountsStats) -> Verdict:
    """The counts begin with the recording, and lie within its obs_intervals where the file states them."""
    clock, expected = stats.clock, f"at most {UNOBSERVED_SHARE:.0%} of the session silent for want of a recording"
    if clock is None:
        return Verdict(True, expected, UNKNOWN)
    before = (clock.first_spike_s - (clock.start_s or 0.0)) / stats.duration_s
    unobserved = max(1 - clock.observed_s / stats.duration_s, 0.0) if clock.intervals_stated else 0.0
    outside = clock.outside_intervals / max(stats.spikes_read - stats.dropped_nan, 1)
    found = [f"{before:.1%} of its bins are before the first spike, at {clock.first_spike_s:,.1f} s"]
    if clock.intervals_stated:
        found.append(f"{unobserved:.1%} of its time is outside obs_intervals")
        found.append(f"{clock.outside_intervals:,} spikes ({outside:.1%}) are outside those of their unit")
    return Verdict(
        passed=before <= UNOBSERVED_SHARE and unobserved <= UNOBSERVED_SHARE and outside <= OUTSIDE_SHARE,
        expected=expected + (" or spikes outside obs_intervals" if clock.intervals_stated else ""),
        found="; ".join(found),
        remedy="the zeros of these bins are not measurements: mask them with obs_intervals of the units table, and "
        "first_spike_s of the sessions table",
        details={
            "before_first_spike_share": round(before, 4),
            "outside_obs_intervals_share": round(unobserved, 4),
            "spikes_outside_obs_intervals": clock.outside_intervals,
            "observed_s": round(clock.observed_s, 3),
        },
    )


PLAUSIBILITY: dict[str, Callable[[CountsStats], Verdict]] = {
    check.__name__: check for check in (spikes_are_in_bins, plausible_clock, time_is_observed)
}
"""The checks that need nothing but a session's statistics, by name."""
