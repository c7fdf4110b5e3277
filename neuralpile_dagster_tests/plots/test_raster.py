"""Rasters fit the event log however busy a recording is, and lose no spike between the pixels."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from neuralpile_dagster.orchestration.metadata.pictures import COMPONENT_CHARACTERS, SESSION_CHARACTERS, _pictures
from neuralpile_dagster.plots.raster import RasterSample, as_markdown, raster_markdown, raster_png

RNG = np.random.default_rng(0)
DENSE = RNG.poisson(0.116, (3_900, 1_000)).astype(np.uint8)
NOISE = RNG.integers(0, 256, (3_900, 1_000)).astype(np.uint8)
SPARSE = RNG.poisson(0.02, (60, 1_000)).astype(np.uint8)
BOUNDS = {1: SESSION_CHARACTERS, 4: COMPONENT_CHARACTERS}


def samples_of(counts: np.ndarray, number: int) -> list[RasterSample]:
    """A number of samples with titles as long as real ones."""
    title = "visual-behavior-neuropixels · sub-738651046_ses-760693773 · segment_3 · 3,900 units x 100,000 bins"
    return [RasterSample(counts, title, 1_000 * position) for position in range(number)]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


@pytest.mark.parametrize("number", BOUNDS)
@pytest.mark.parametrize("counts", [DENSE, NOISE], ids=["dense", "noise"])
def test_the_pictures_of_a_busy_session_and_its_glance_fit_the_bound(counts: np.ndarray, number: int) -> None:
    made = _pictures(samples_of(counts, number), "raster", "raster of a session", BOUNDS[number])
    assert set(made) == {"glance", "raster"}
    assert sum(len(str(value.md_str)) for value in made.values()) <= BOUNDS[number]


def test_a_busy_picture_is_the_same_every_time() -> None:
    first, second = (raster_markdown(samples_of(DENSE, 1), "raster", 29_000) for _ in range(2))
    assert first == second


def test_a_busy_picture_is_not_all_of_one_gray() -> None:
    text = raster_markdown(samples_of(DENSE, 1), "raster", 29_000)
    drawn = pixels(base64.b64decode(text.rstrip(")").split(",")[-1]))[50:170, 70:780]
    _, pixels_per_gray = np.unique(drawn, return_counts=True)
    assert pixels_per_gray.max() < 0.95 * drawn.size


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


def test_no_samples_make_no_pictures() -> None:
    assert _pictures([], "raster", "raster of nothing", SESSION_CHARACTERS) == {}
