"""The picture of the most frequent motifs."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from neuralpile_dagster.plots.raster import WIDTH_PX, motifs_png


def pixels(png: bytes) -> np.ndarray:
    """Gray values, 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def motifs(n: int, n_units: int = 1, n_bins: int = 15) -> np.ndarray:
    """Motif k has a spike in cell k."""
    patches = np.zeros((n, n_units * n_bins), np.uint8)
    patches[np.arange(n), np.arange(n) % patches.shape[1]] = 1
    return patches.reshape(n, n_units, n_bins)


def test_a_cell_with_spikes_is_dark_and_all_others_are_white():
    patches = np.zeros((1, 2, 5), np.uint8)
    empty = pixels(motifs_png(patches, [0.5]))
    patches[0, 1, 3] = 9
    drawn = pixels(motifs_png(patches, [0.5]))
    rows, columns = np.nonzero(drawn < empty.astype(int) - 100)
    left, top = 8 + 3 * 22, 18 + 22  # margin and title, then cells of 22 pixels
    assert left - 1 <= columns.min() <= columns.max() <= left + 22
    assert top - 1 <= rows.min() <= rows.max() <= top + 22
    assert np.mean(drawn[top + 2 : top + 20, left + 2 : left + 20] < 128) > 0.8


def test_more_spikes_are_darker():
    patches = np.array([[[1, 4, 16]]], np.uint8)
    drawn = pixels(motifs_png(patches, [0.1]))
    shades = [int(np.median(drawn[20:38, 10 + 22 * cell : 28 + 22 * cell])) for cell in range(3)]
    assert shades == sorted(shades, reverse=True)
    assert len(set(shades)) == 3


@pytest.mark.parametrize(("n", "rows"), [(1, 1), (4, 1), (5, 2), (16, 4), (40, 4)])
def test_sixteen_motifs_at_most_are_in_four_columns(n: int, rows: int):
    drawn = pixels(motifs_png(motifs(n), [1 / (k + 2) for k in range(n)], 0.02))
    height = 18 + (WIDTH_PX / 4 - 16) / 15 + 8
    assert drawn.shape == (round(rows * height + 24), WIDTH_PX)


def test_the_same_motifs_give_the_same_small_picture():
    rng = np.random.default_rng(0)
    patches = rng.poisson(0.4, (16, 8, 8)).astype(np.uint8)
    first = motifs_png(patches, [0.01] * 16)
    assert first == motifs_png(patches, [0.01] * 16)
    assert len(first) < 30_000
    assert len(motifs_png(motifs(16, 64, 1), [0.01] * 16)) < 30_000
    assert pixels(motifs_png(motifs(0), [])).shape[1] == WIDTH_PX, "a table without motifs"
