"""Spike counts -> raster pictures (x: bins, y: units), small enough for Dagster's event log."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from PIL import Image

WINDOW_BINS = 1000
"""Maximum number of bins shown: 20 s at 20 ms."""
DPI = 100
WIDTH_PX, HEIGHT_PX = 800, 220
"""Size of one sample with its title and axes."""
_LEFT, _WIDTH, _HEIGHT, _BOTTOM = 0.075, 0.89, 0.68, 0.19
"""Position of the raster in its panel, as fractions."""
GRAYS = 16
_COARSER = tuple((grays, bins) for bins in (WINDOW_BINS, 500, 250, 125, 60) for grays in (GRAYS, 4))
"""Grays and bins to draw with until a picture is small enough. No fewer units: pooled by more, all would be black, as
they would in two grays."""


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
    """Cut a random window of at most `WINDOW_BINS` bins from a segment.

    Parameters
    ----------
    counts : numpy.ndarray, uint8, shape (n_units, n_bins)
    title : str
    rng : numpy.random.Generator
    synthetic : bool
        Whether the title must say so.
    """
    n_units, n_bins = counts.shape
    start = int(rng.integers(0, max(n_bins - WINDOW_BINS, 0) + 1))
    piece = counts[:, start : start + WINDOW_BINS]
    label = "SYNTHETIC · " if synthetic else ""
    return RasterSample(piece, f"{label}{title} · {n_units:,} units x {n_bins:,} bins", start)


def _pooled(counts: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Pool units and bins by maximum to at most this many, so that no spike disappears between the pixels."""
    for axis, most in ((0, rows), (1, columns)):
        length = counts.shape[axis]
        if length > most:
            counts = np.maximum.reduceat(counts, np.linspace(0, length, most, endpoint=False).astype(int), axis=axis)
    return counts


class _Panels:
    """A reusable figure with ``count`` empty rasters below each other.

    Making axes and their ticks costs more than drawing them, and a batch draws one picture per session.
    """

    def __init__(self, count: int, width_px: int, height_px: int) -> None:
        figure = Figure(figsize=(width_px / DPI, height_px * count / DPI), dpi=DPI)
        self.canvas = FigureCanvasAgg(figure)
        self.axes, self.titles = [], []
        for position in range(count):
            # placed by hand: constrained_layout costs more than the drawing itself, as does automatic title placement
            bottom = 1 - (position + 1 - _BOTTOM) / count
            axes = figure.add_axes((_LEFT, bottom, _WIDTH, _HEIGHT / count))
            self.titles.append(axes.set_title("", fontsize=8, loc="left", pad=3, y=1.0))
            axes.set_ylabel("units", fontsize=8)
            axes.set_xlabel("bins", fontsize=8, labelpad=1)
            axes.tick_params(labelsize=7, length=2, pad=1)
            for axis, most in ((axes.xaxis, 5), (axes.yaxis, 3)):  # ticks take half the time of drawing
                axis.set_major_locator(MaxNLocator(most, integer=True))
                axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            self.axes.append(axes)

    def draw(self, samples: Sequence[RasterSample], most_bins: int) -> Image.Image:
        shown = [sample.counts[:, :most_bins] for sample in samples]
        for axes, title, counts, sample in zip(self.axes, self.titles, shown, samples, strict=True):
            n_units, n_bins = counts.shape
            axes.set_xlim(sample.first_bin, sample.first_bin + n_bins)
            axes.set_ylim(n_units, 0)
            title.set_text(sample.title)
        self.canvas.draw()
        picture = Image.fromarray(np.asarray(self.canvas.buffer_rgba())).convert("L")
        for axes, counts in zip(self.axes, shown, strict=True):
            _paste(picture, axes, counts)
        return picture


def _paste(picture: Image.Image, axes: Axes, counts: np.ndarray) -> None:
    """Fill the inside of axes; faster than matplotlib's images, whose colors and smoothing are not needed here."""
    if not counts.size:
        return
    box = axes.get_window_extent()
    left, top = round(box.x0) + 1, round(picture.height - box.y1) + 1  # within the frame
    size = round(box.x1) - 1 - left, round(picture.height - box.y0) - 1 - top
    pooled = _pooled(counts, size[1], size[0])
    grays = 255 - np.rint(pooled * (255 / max(int(counts.max()), 1)))
    picture.paste(Image.fromarray(grays.astype(np.uint8)).resize(size, Image.Resampling.NEAREST), (left, top))


_panels = lru_cache(maxsize=2)(_Panels)


def raster_png(samples: Sequence[RasterSample], width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> bytes:
    """Draw rasters below each other and give a palette PNG.

    Darker means more spikes in the bin; white is none. The color range ends at
    the sample's largest count, or 1. At the default size a sample takes 3 to 15
    kB when few bins hold spikes, up to 55 kB when most do. One thread of a
    process may draw at a time.
    """
    return _png(_panels(len(samples), width_px, height_px).draw(samples, WINDOW_BINS), GRAYS)


def raster_markdown(samples: Sequence[RasterSample], alt: str, most_characters: int) -> str:
    """Draw rasters as Markdown of at most so many characters, with fewer grays, then fewer bins of each sample.

    Same samples, same picture. The coarsest is returned even if it is too long,
    which happens only with a limit below some 12,000 per sample.
    """
    panels, drawn, text = _panels(len(samples), WIDTH_PX, HEIGHT_PX), 0, ""
    for grays, bins in _COARSER:
        if bins != drawn:
            image, drawn = panels.draw(samples, bins), bins
        text = as_markdown(_png(image, grays), alt)
        if len(text) <= most_characters:
            break
    return text


def _png(image: Image.Image, grays: int) -> bytes:
    file = io.BytesIO()
    if grays < GRAYS:  # few are to be chosen well
        image.quantize(grays).save(file, format="PNG", optimize=True)
    else:  # equally spaced ones are good enough, and fast
        nearest = (np.asarray(image).astype(np.uint16) * (grays - 1) + 127) // 255
        palette = Image.fromarray(nearest.astype(np.uint8), "P")
        palette.putpalette([gray for number in range(grays) for gray in [number * 255 // (grays - 1)] * 3])
        palette.save(file, format="PNG", bits=(grays - 1).bit_length())
    return file.getvalue()


def as_markdown(png: bytes, alt: str = "raster") -> str:
    """PNG as Markdown that Dagster's UI renders."""
    return f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})"
