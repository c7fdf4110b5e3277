"""Rasters fit the event log however busy a recording is, lose no spike between pixels, and show where spikes are."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image

from neuralpile_dagster.orchestration.metadata import COMPONENT_CHARACTERS, SESSION_CHARACTERS, _pictures
from neuralpile_dagster.plots import raster
from neuralpile_dagster.plots.raster import as_markdown, raster_markdown, raster_png
from neuralpile_dagster.plots.window import WINDOW_BINS, RasterSample, SegmentFacts, sample_window

RNG = np.random.default_rng(0)
SPARSE = RNG.poisson(0.02, (60, 1_000)).astype(np.uint8)
AREAS = [("VISp", "CA1", "a long name of an area", None)[unit % 4] for unit in range(3_900)]
BOUNDS = {1: SESSION_CHARACTERS, 4: COMPONENT_CHARACTERS}


@cache  # made by tests: each process collects all
def dense() -> np.ndarray:
    return np.random.default_rng(0).poisson(0.116, (3_900, 1_000)).astype(np.uint8)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3_900, 1_000)).astype(np.uint8)


def samples_of(counts: np.ndarray, number: int) -> list[RasterSample]:
    """A number of samples with titles as long as real ones, and everything known that can be drawn."""
    title = "visual-behavior-neuropixels · sub-738651046_ses-760693773 · segment_3"
    facts = SegmentFacts(AREAS[: len(counts)], 0.02, 180_000, 428_000, 12.5, tuple(range(120)))
    return [sample_window(counts, title, np.random.default_rng(position), False, facts) for position in range(number)]


def pixels(png: bytes) -> np.ndarray:
    """Grays of the part in which counts are drawn."""
    image = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    return image[raster._RASTER[0] : raster._RASTER[1], raster._LEFT : raster._RIGHT]


@pytest.mark.parametrize("number", BOUNDS)
@pytest.mark.parametrize("counts", [dense, noise])
def test_the_pictures_of_a_busy_session_and_its_glance_fit_the_bound(
    counts: Callable[[], np.ndarray], number: int
) -> None:
    made = _pictures(samples_of(counts(), number), "raster", "raster of a session", BOUNDS[number])
    assert set(made) == {"glance", "raster"}
    assert sum(len(str(value.md_str)) for value in made.values()) <= BOUNDS[number]


def test_the_text_instead_of_a_glance_names_the_segment_that_it_shows() -> None:
    made = _pictures(samples_of(dense(), 1), "raster", "raster of a session", SESSION_CHARACTERS)
    alt = str(made["glance"].md_str).removeprefix("![").partition("](")[0]
    escaped = r"visual-behavior-neuropixels · sub-738651046\_ses-760693773 · segment\_3"
    assert alt.startswith(f"thumbnail raster of {escaped}")


def test_a_busy_picture_is_the_same_every_time() -> None:
    first, second = (raster_markdown(samples_of(dense(), 1), "raster", 29_000) for _ in range(2))
    assert first == second


def test_a_busy_picture_still_shows_which_units_fire_more_and_when() -> None:
    counts = np.random.default_rng(1).poisson(0.1, (2_446, 680)).astype(np.uint8)
    counts[:1_200, 300:400] += np.random.default_rng(2).poisson(0.4, (1_200, 100)).astype(np.uint8)
    facts = SegmentFacts(["CA1"] * 1_200 + ["DG"] * 1_246)
    text = raster_markdown([sample_window(counts, "busy", np.random.default_rng(0), False, facts)], "raster", 29_000)
    drawn = pixels(base64.b64decode(text.rstrip(")").split(",")[-1])).astype(float)
    middle = drawn.shape[0] // 2  # the larger area, DG, is drawn above
    start, stop = (edge * drawn.shape[1] // 680 for edge in (310, 390))
    active, silent = drawn[middle + 8 :, start:stop].mean(), drawn[: middle - 8, start:stop].mean()
    assert active < 0.7 * silent
    assert active < 0.7 * drawn[middle + 8 :, : start - 20].mean()


@pytest.mark.parametrize("number", BOUNDS)
def test_a_sparse_picture_stays_as_it_is(number: int) -> None:
    samples = samples_of(SPARSE, number)
    assert raster_markdown(samples, "raster", BOUNDS[number] - 1_000) == as_markdown(raster_png(samples), "raster")


def test_every_spike_of_more_units_and_bins_than_there_are_pixels_is_drawn() -> None:
    for unit, bin_ in RNG.integers(0, (2_000, 1_000), (6, 2)):
        counts = np.zeros((2_000, 1_000), np.uint8)
        blank = pixels(raster_png([RasterSample(counts, "one spike")]))
        counts[unit, bin_] = 1
        drawn = pixels(raster_png([RasterSample(counts, "one spike")]))
        assert (drawn != blank).any(), (unit, bin_)


def test_a_single_spike_beside_busy_units_is_drawn() -> None:
    counts = np.zeros((2_000, 680), np.uint8)
    counts[:1_000] = 255
    counts[1_900, 300] = 1
    drawn = pixels(raster_png([RasterSample(counts, "one spike")]))
    assert (drawn[120:] < 255).any()


def test_no_samples_make_no_pictures() -> None:
    assert _pictures([], "raster", "raster of nothing", SESSION_CHARACTERS) == {}


@pytest.mark.parametrize("seed", range(20))
def test_the_window_is_where_spikes_are(seed: int) -> None:
    counts = np.zeros((3, 100_000), np.uint8)
    counts[1, 70_000:70_100] = 1
    sample = sample_window(counts, "quiet", np.random.default_rng(seed))
    assert sample.counts.any()
    assert sample.counts.shape[1] == WINDOW_BINS


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 680), (200, 681)])
def test_short_and_silent_segments_are_drawn(shape: tuple[int, int]) -> None:
    sample = sample_window(np.zeros(shape, np.uint8), "silent", np.random.default_rng(0))
    assert sample.counts.shape == (shape[0], min(shape[1], WINDOW_BINS))
    assert pixels(raster_png([sample])).min() == 255


def test_units_are_grouped_by_area_the_largest_first_and_sorted_by_rate_inside() -> None:
    counts = np.zeros((5, 10), np.uint8)
    for unit, spikes in enumerate((1, 5, 2, 9, 7)):
        counts[unit, :spikes] = 1
    facts = SegmentFacts(["CA1", None, "CA1", "DG", "CA1"])
    sample = sample_window(counts, "areas", np.random.default_rng(0), facts=facts)
    assert sample.bands == (("CA1", 3), ("DG", 1), ("no area", 1))
    assert sample.counts.sum(axis=1).tolist() == [7, 2, 1, 9, 5]
    assert sample_window(counts, "no areas", np.random.default_rng(0)).bands == ()


@pytest.mark.parametrize(
    ("facts", "start", "step", "label"),
    [
        (SegmentFacts(), 0, 1, "bins of the segment"),
        (SegmentFacts(bin_width_s=0.02), 0, 0.02, "seconds from the start of the segment"),
        (
            SegmentFacts(bin_width_s=0.02, first_bin=500, session_bins=600),
            10,
            0.02,
            "seconds from the first bin of the session",
        ),
        (
            SegmentFacts(bin_width_s=0.02, first_bin=500, session_bins=600, clock_start_s=100.0),
            110,
            0.02,
            "seconds of the session's clock",
        ),
    ],
)
def test_the_x_axis_is_the_sessions_clock_where_it_is_known_and_says_what_it_is(
    facts: SegmentFacts, start: float, step: float, label: str
) -> None:
    sample = sample_window(np.ones((2, 100), np.uint8), "x", np.random.default_rng(0), facts=facts)
    assert (sample.start, sample.step, sample.x_label) == (start, step, label)


def test_the_strip_is_the_whole_session_with_the_window_marked() -> None:
    facts = SegmentFacts(bin_width_s=0.02, first_bin=400, session_bins=1_000, activity=(1, 2, 3))
    strip = sample_window(np.ones((2, 100), np.uint8), "x", np.random.default_rng(0), facts=facts).strip
    assert strip is not None
    assert (strip.label, strip.span, strip.window) == ("session, 20.0 s", (0.0, 1.0), (0.4, 0.5))
    assert strip.spikes.tolist() == [1, 2, 3]
    unknown = sample_window(np.ones((2, 100), np.uint8), "x", np.random.default_rng(0)).strip
    assert unknown is not None
    assert (unknown.label, unknown.window) == ("segment", (0.0, 1.0))
