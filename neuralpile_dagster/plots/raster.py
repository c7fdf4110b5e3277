"""Spike counts -> raster pictures (x: bins, y: units), small enough for Dagster's event log."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

WINDOW_BINS = 1000
"""Bins shown at most: 20 s at 20 ms, where single spikes are still told apart."""
MAX_ROWS = 240
"""Pixel rows for units; more units are pooled by their maximum so that no spike disappears."""
DPI = 100


@dataclass(frozen=True)
class RasterSample:
    """A piece of one segment to draw.

    Attributes
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)
    title : str
    first_bin : int
        Bin of the segment at which ``counts`` begins.
    """

    counts: np.ndarray
    title: str
    first_bin: int = 0


def sample_window(counts: np.ndarray, title: str, rng: np.random.Generator, synthetic: bool = False) -> RasterSample:
    """Cut a random window of at most `WINDOW_BINS` bins from a segment (n_units, n_bins)."""
    n_units, n_bins = counts.shape
    start = int(rng.integers(0, max(n_bins - WINDOW_BINS, 0) + 1))
    piece = counts[:, start : start + WINDOW_BINS]
    label = "SYNTHETIC · " if synthetic else ""
    return RasterSample(piece, f"{label}{title} · {n_units:,} units x {n_bins:,} bins", start)


def _pooled(counts: np.ndarray) -> np.ndarray:
    """Pool units by maximum to at most `MAX_ROWS` rows."""
    step = -(-len(counts) // MAX_ROWS)
    if step <= 1:
        return counts
    starts = np.arange(0, len(counts), step)
    return np.maximum.reduceat(counts, starts, axis=0)


class _Panels:
    """A figure with ``count`` empty rasters below each other, to be filled again and again.

    Making axes and their ticks costs more than drawing them, and a batch draws one picture per session.
    """

    def __init__(self, count: int, width_px: int, height_px: int) -> None:
        figure = Figure(figsize=(width_px / DPI, height_px * count / DPI), dpi=DPI)
        self.canvas = FigureCanvasAgg(figure)
        self.axes, self.images, self.titles = [], [], []
        for position in range(count):
            # placed by hand: constrained_layout costs more than the drawing itself, as does a title that finds its y
            bottom = 1 - (position + 1 - 0.19) / count
            axes = figure.add_axes((0.075, bottom, 0.91, 0.68 / count))
            self.titles.append(axes.set_title("", fontsize=8, loc="left", pad=3, y=1.0))
            axes.set_ylabel("units", fontsize=8)
            axes.set_xlabel("bins", fontsize=8, labelpad=1)
            axes.tick_params(labelsize=7, length=2, pad=1)
            self.axes.append(axes)
            blank = np.zeros((1, 1), np.uint8)
            self.images.append(axes.imshow(blank, aspect="auto", cmap="gray_r", interpolation="nearest"))

    def fill(self, position: int, sample: RasterSample) -> None:
        n_units, n_bins = sample.counts.shape
        axes, image = self.axes[position], self.images[position]
        image.set_data(_pooled(sample.counts))
        image.set_clim(0, max(int(sample.counts.max(initial=0)), 1))
        image.set_extent((sample.first_bin, sample.first_bin + n_bins, n_units, 0))
        axes.set_xlim(sample.first_bin, sample.first_bin + n_bins)
        axes.set_ylim(n_units, 0)
        self.titles[position].set_text(sample.title)


_panels = lru_cache(maxsize=2)(_Panels)


def raster_png(samples: Sequence[RasterSample], width_px: int = 800, height_px: int = 220) -> bytes:
    """Draw rasters below each other and give a palette PNG (about 10-25 kB each at the default size).

    Darker means more spikes in the bin; white is none. The colour range ends at
    the sample's largest count, or 1. One thread of a process may draw at a time.
    """
    panels = _panels(len(samples), width_px, height_px)
    for position, sample in enumerate(samples):
        panels.fill(position, sample)
    panels.canvas.draw()
    image = Image.fromarray(np.asarray(panels.canvas.buffer_rgba())).convert("L").quantize(16)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()


def as_markdown(png: bytes, alt: str = "raster") -> str:
    """Give a PNG as Markdown that Dagster's UI renders."""
    return f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})"
