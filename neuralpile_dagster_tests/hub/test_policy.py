from __future__ import annotations

import pytest

from neuralpile_dagster.errors import HubError
from neuralpile_dagster.publish.component import NOT_BUILT, VANISHED, publishable
from neuralpile_dagster_tests.fixtures.sessions import manifest_of

TEN = [f"s{i}" for i in range(10)]


def test_a_complete_dataset_misses_nothing():
    assert publishable(manifest_of(*TEN), TEN, {}) == {}


def test_an_incomplete_dataset_is_refused_and_the_missing_sessions_named():
    with pytest.raises(HubError) as caught:
        publishable(manifest_of(*TEN), TEN[2:], {"s0": "s0.nwb is damaged"})
    for words in (
        "8 of 10 sessions",
        "s0 (s0.nwb is damaged)",
        f"s1 ({NOT_BUILT})",
        "min_session_share",
        "at least 10",
    ):
        assert words in str(caught.value)


def test_a_lower_share_lets_it_pass_and_says_what_is_missing():
    missing = publishable(manifest_of(*TEN), TEN[1:], {"s0": "damaged"}, 0.9)
    assert missing == {"s0": "damaged"}


@pytest.mark.parametrize(
    ("share", "done", "passes"), [(0.9, 9, True), (0.9, 8, False), (0.7, 7, True), (0.29, 3, True)]
)
def test_the_share_is_exact(share: float, done: int, passes: bool):
    if passes:
        assert len(publishable(manifest_of(*TEN), TEN[:done], {}, share)) == 10 - done
    else:
        with pytest.raises(HubError, match=f"{done} of 10"):
            publishable(manifest_of(*TEN), TEN[:done], {}, share)


@pytest.mark.parametrize(("share", "needed"), [(0.55, 55), (0.07, 7), (0.29, 29), (0.57, 57)])
def test_a_share_of_a_hundred_sessions_asks_for_exactly_as_many(share: float, needed: int):
    """0.55 * 100 is 55.00000000000001 in binary fractions."""
    keys = [f"s{i:03d}" for i in range(100)]
    assert len(publishable(manifest_of(*keys), keys[:needed], {}, share)) == 100 - needed
    with pytest.raises(HubError, match=rf"{needed - 1} of 100 .*at least {needed} "):
        publishable(manifest_of(*keys), keys[: needed - 1], {}, share)


def test_nothing_done_is_refused_at_any_share():
    with pytest.raises(HubError, match="0 of 10"):
        publishable(manifest_of(*TEN), [], {}, 0.0)
    with pytest.raises(HubError, match="0 of 0"):
        publishable(manifest_of(), [], {}, 1.0)


def test_long_lists_of_missing_sessions_are_cut():
    keys = [f"s{i:03d}" for i in range(100)]
    with pytest.raises(HubError, match="and 90 more") as caught:
        publishable(manifest_of(*keys), [], {})
    assert "s009" in str(caught.value) and "s010" not in str(caught.value)


def test_a_vanished_session_that_cannot_be_built_does_not_block():
    manifest = manifest_of(*TEN)
    gone = manifest.sessions[0].model_copy(update={"vanished": True})
    manifest = manifest.model_copy(update={"sessions": (gone, *manifest.sessions[1:])})
    assert publishable(manifest, TEN[1:], {}) == {"s0": VANISHED}
    assert publishable(manifest, TEN, {}) == {}


def test_a_failure_of_a_session_that_is_done_now_is_not_missing():
    assert publishable(manifest_of(*TEN), TEN, {"s0": "failed the last time"}) == {}
