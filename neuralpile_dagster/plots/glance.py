"""Thumbnail rasters, small enough for Dagster's UI to show their Markdown without a click."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from neuralpile_dagster.plots.raster import as_markdown
from neuralpile_dagster.plots.window import RasterSample

INLINE_CHARACTERS = 1000
"""Characters of Markdown from which Dagster 1.13 shows a link "[Show Markdown]" instead of the content."""
BINS = 180
BIN_PX = 2
HEIGHT_PX = 96
UNIT_ROWS = (32, 24, 16, 12, 8, 4)
"""Possible numbers of units to draw; the largest that fits is used. Divisors of `HEIGHT_PX`."""


def glance_markdown(sample: RasterSample) -> str:
    """Draw the first `BINS` bins of some units of a sample, black where there is a spike, as inline Markdown.

    Units are taken at equal distances in the order of the sample; the busier they are, the
    fewer are drawn. Returns no picture when even the fewest do not fit.
    """
    piece = sample.counts[:, :BINS] > 0
    for rows in UNIT_ROWS:
        chosen = np.unique(np.linspace(0, len(piece) - 1, min(rows, len(piece))).astype(int))
        caption = f"{len(chosen):,} of {len(piece):,} units, {piece.shape[1]} bins"
        text = f"{as_markdown(_png(piece[chosen]))}\n\n{caption}"
        if len(text) < INLINE_CHARACTERS:
            return text
    return "too busy to draw so small"


def _png(spikes: np.ndarray) -> bytes:
    """Draw (n_units, n_bins) of bool, one bit per pixel."""
    unit_px = max(HEIGHT_PX // len(spikes), 1)
    pixels = ~np.kron(spikes, np.ones((unit_px, BIN_PX), bool))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return file.getvalue()
