"""Pictures of spike counts (x: time, y: units), small enough for Dagster's event log: rasters, thumbnails, motifs.

Above each raster are a strip of the whole session, with the shown window marked, and the mean rate of all units.
Matplotlib draws axes and texts; what fills them is written pixel by pixel, which is faster than its images and areas: a
batch draws one picture per session. What a raster shows is chosen in `window`, which motifs are the most frequent in
`motifs.table`.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from PIL import Image

from neuralpile_dagster.markdown import text
from neuralpile_dagster.plots.window import WINDOW_BINS, RasterSample

WIDTH_PX, HEIGHT_PX = 800, 270
"""Size of one sample with its title and axes."""
_LEFT, _RIGHT = 104, WIDTH_PX - 16
_STRIP = (20, 34)
_RATE = (40, 70)
_RASTER = (76, HEIGHT_PX - 36)
"""Top and bottom of the three parts, from the top of the sample, in pixels."""
GRAYS = 14
WHITE, BLACK = 0, GRAYS - 1
BLUE, ORANGE = GRAYS, GRAYS + 1
_PALETTE = [value for gray in range(GRAYS) for value in [255 - gray * 255 // (GRAYS - 1)] * 3] + [
    *(31, 95, 176),
    *(230, 110, 20),
]
"""16 colors: 4 bits a pixel."""
_INKS = np.rint((255 - np.arange(256)) * ((GRAYS - 1) / 255)).astype(np.uint8)
"""Palette index of each gray of 8 bits."""
_COARSER = ((GRAYS, WINDOW_BINS), (GRAYS, 340), (5, 340), (GRAYS, 170), (5, 170), (3, 85))
"""Grays and columns to draw with until a picture is small enough; the window stays the same."""
_SMOOTH_BINS = 5
_LINE_PX, _LABEL_CHARACTERS = 11, 11
_DPI, _TEXT_PT = 100, 7.5
INLINE_CHARACTERS = 1000
"""Characters of Markdown from which Dagster 1.13 shows a link "[Show Markdown]" instead of the content."""
_GLANCE_BINS, _GLANCE_BIN_PX, _GLANCE_HEIGHT_PX = 180, 2, 96
_GLANCE_UNITS = (32, 24, 16, 12, 8, 4)
"""Possible numbers of units of a thumbnail; the largest that fits is used. Divisors of its height."""
N_MOTIFS = 16
"""Motifs of a picture, in four columns."""
_COLUMNS, _MARGIN_PX, _TITLE_PX, _FOOT_PX = 4, 8, 18, 24
_MOST_PX, _TALLEST_PX = 22, 320
"""Side of a cell, and height of a motif, at most."""
_MOTIF_GRAYS = 16
_MOTIF_PALETTE = [value for gray in range(_MOTIF_GRAYS) for value in [gray * 255 // (_MOTIF_GRAYS - 1)] * 3]


def raster_png(samples: Sequence[RasterSample]) -> bytes:
    """Draw rasters below each other and return a palette PNG.

    Darker means more spikes: of a unit in a bin, or of neighboring units where there are more units than pixels. A
    sample takes 5 to 20 kB when few bins hold spikes, up to 60 kB when most do. One thread of a process may draw at a
    time.
    """
    return palette_png(_draw(samples, _frames(samples), GRAYS, WINDOW_BINS), _PALETTE)


def raster_name(number: int, sample: RasterSample) -> str:
    """Name of the PNG of one sample: its number (sorted as drawn), and its title where every file system takes it."""
    return f"{number:06d}-{re.sub(r'[^A-Za-z0-9.-]+', '_', sample.title).strip('_')[:150]}.png"


def raster_markdown(samples: Sequence[RasterSample], alt: str, most_characters: int) -> str:
    """Draw rasters as Markdown of at most so many characters: with fewer grays, then fewer columns.

    Same samples, same picture. The coarsest is returned even if it is too long,
    which happens only with a limit below some 12,000 per sample.
    """
    frames, text = _frames(samples), ""
    for grays, columns in _COARSER:
        text = as_markdown(palette_png(_draw(samples, frames, grays, columns), _PALETTE), alt)
        if len(text) <= most_characters:
            break
    return text


def as_markdown(png: bytes, alt: str) -> str:
    """PNG as Markdown that Dagster's UI renders."""
    return f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})"


def palette_png(pixels: np.ndarray, palette: Sequence[int]) -> bytes:
    """PNG of 4 bits a pixel, from indices of up to 16 colors: uint8, shape (height, width)."""
    image, file = Image.fromarray(pixels, "P"), io.BytesIO()
    image.putpalette(palette)
    image.save(file, format="PNG", bits=4)
    return file.getvalue()


def _frames(samples: Sequence[RasterSample]) -> list[np.ndarray]:
    """All of each sample but its counts: palette indices, uint8, shape (HEIGHT_PX, WIDTH_PX)."""
    frames = []
    for sample in samples:
        frames.append(_frame(_words(sample)).copy())
        _draw_strip(frames[-1], sample)
        _draw_rate(frames[-1], sample)
    return frames


def _draw(samples: Sequence[RasterSample], frames: Sequence[np.ndarray], grays: int, columns: int) -> np.ndarray:
    """Draw all samples below each other: palette indices, uint8, shape (height, width)."""
    pixels = np.concatenate([*frames, np.zeros((0, WIDTH_PX), np.uint8)])
    for number, sample in enumerate(samples):
        _draw_counts(pixels[number * HEIGHT_PX : (number + 1) * HEIGHT_PX], sample, grays, columns)
    return pixels


def _draw_strip(pixels: np.ndarray, sample: RasterSample) -> None:
    if sample.strip is None:
        return
    top, bottom = _STRIP
    pixels[bottom, _LEFT:_RIGHT] = BLACK // 2
    left, right = (_x(share) for share in sample.strip.span)
    _fill(pixels, top, bottom, left, max(right, left + 1), sample.strip.spikes, BLACK // 2)
    left, right = (_x(share) for share in sample.strip.window)
    box = pixels[top - 1 : bottom + 2, left : max(right, left + 2)]
    box[box == WHITE] = ORANGE
    box[[0, -1]] = ORANGE


def _draw_rate(pixels: np.ndarray, sample: RasterSample) -> None:
    top, bottom = _RATE
    pixels[bottom, _LEFT:_RIGHT] = BLACK // 2
    rate = _smooth_rate(sample)
    if len(rate):
        _fill(pixels, top, bottom, _LEFT, _RIGHT, rate - rate.min(), BLUE)


def _smooth_rate(sample: RasterSample) -> np.ndarray:
    """Mean rate of the units: Hz, or spikes per bin where the width of a bin is not known; float64, shape (n_bins,)."""
    if not sample.counts.size:
        return np.zeros(0)
    rate = sample.counts.mean(axis=0) / (sample.bin_width_s or 1.0)
    width = min(_SMOOTH_BINS, len(rate))
    return np.convolve(rate, np.ones(width), "same") / np.convolve(np.ones(len(rate)), np.ones(width), "same")


def _fill(pixels: np.ndarray, top: int, bottom: int, left: int, right: int, values: np.ndarray, color: int) -> None:
    """Fill the area below a curve whose largest value reaches ``top``."""
    largest = float(values.max()) if len(values) else 0.0
    if largest <= 0:
        return
    at = values[np.arange(right - left) * len(values) // (right - left)]
    heights = np.ceil(at / largest * (bottom - top)).astype(int)
    rows = np.arange(bottom - top)[::-1, None]
    pixels[top:bottom, left:right][rows < heights] = color


def _draw_counts(pixels: np.ndarray, sample: RasterSample, grays: int, columns: int) -> None:
    top, bottom = _RASTER
    if sample.counts.size:
        pooled = _pooled(sample.counts, bottom - top, columns)
        shades = _shades(pooled, grays)
        rows = np.arange(bottom - top) * len(shades) // (bottom - top)
        across = np.arange(_RIGHT - _LEFT) * shades.shape[1] // (_RIGHT - _LEFT)
        pixels[top:bottom, _LEFT:_RIGHT] = shades[rows[:, None], across]
    pixels[[top - 1, bottom], _LEFT - 1 : _RIGHT + 1] = BLACK // 2
    pixels[top:bottom, [_LEFT - 1, _RIGHT]] = BLACK // 2
    for _, _, below in _band_rows(sample)[:-1]:
        pixels[below, _LEFT - 8 : _RIGHT] = np.maximum(pixels[below, _LEFT - 8 : _RIGHT], 3)
        pixels[below, _LEFT - 8 : _LEFT] = BLACK


def _pooled(counts: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Sum neighboring units and bins until there are at most so many rows and columns."""
    for axis, most in ((0, rows), (1, columns)):
        length = counts.shape[axis]
        if length > most:
            cuts = np.linspace(0, length, most, endpoint=False).astype(int)
            counts = np.add.reduceat(counts, cuts, axis=axis, dtype=np.uint32)
    return counts


def _shades(pooled: np.ndarray, grays: int) -> np.ndarray:
    """Palette indices of sums: white for none, and darker with the root of the sum; every spike is at least gray."""
    some = pooled[pooled > 0]
    if not len(some):
        return np.zeros(pooled.shape, np.uint8)
    top = max(float(np.partition(some, int(0.99 * (len(some) - 1)))[int(0.99 * (len(some) - 1))]), 1.0)
    most = min(int(pooled.max()), int(top))
    steps = np.ceil(np.sqrt(np.arange(most + 1) / top) * (grays - 1) - 1e-9)
    table = np.minimum(steps * (GRAYS - 1) // (grays - 1), BLACK).astype(np.uint8)
    return table[np.minimum(pooled, most)]


def _band_rows(sample: RasterSample) -> list[tuple[str, int, int]]:
    """Label, top and bottom pixel of each band of units."""
    top, height = _RASTER[0], _RASTER[1] - _RASTER[0]
    sizes = np.array([0, *(size for _, size in sample.bands)])
    edges = top + np.cumsum(sizes) * height // max(int(sizes.sum()), 1)
    return [(label, int(edges[i]), int(edges[i + 1])) for i, (label, _) in enumerate(sample.bands)]


def _x(share: float) -> int:
    return _LEFT + round(min(max(share, 0.0), 1.0) * (_RIGHT - _LEFT))


class _Words(NamedTuple):
    """All that Matplotlib draws of a sample."""

    title: str
    strip: str
    rate: str
    x_limits: tuple[float, float]
    x_label: str
    units: tuple[tuple[float, str], ...]
    """Middle in pixels and label of each band."""


def _words(sample: RasterSample) -> _Words:
    rate = _smooth_rate(sample)
    unit = "/bin" if sample.bin_width_s is None else "Hz"
    return _Words(
        title=sample.title,
        strip=sample.strip.label if sample.strip is not None else "",
        rate=f"{float(rate.min()):.2g} to {float(rate.max()):.2g} {unit}" if len(rate) else "",
        x_limits=(sample.start, sample.start + max(sample.counts.shape[1] * sample.step, 1e-9)),
        x_label=sample.x_label,
        units=tuple(_unit_labels(sample).items()),
    )


class _Axes:
    """Axes, title and labels of one sample, drawn again and again: making them costs more than drawing them."""

    def __init__(self) -> None:
        figure = Figure(figsize=(WIDTH_PX / _DPI, HEIGHT_PX / _DPI), dpi=_DPI)
        self._canvas = FigureCanvasAgg(figure)
        top, bottom = _RASTER
        # placed by hand: layout engines cost more than the drawing itself
        place = _LEFT / WIDTH_PX, 1 - bottom / HEIGHT_PX, (_RIGHT - _LEFT) / WIDTH_PX, (bottom - top) / HEIGHT_PX
        self._axes = figure.add_axes(place, frameon=False)
        self._axes.tick_params(labelsize=_TEXT_PT, length=3, pad=1)
        self._axes.tick_params(axis="y", length=0, pad=11)
        self._axes.xaxis.set_major_locator(MaxNLocator(8))
        self._axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.7g}"))
        self._axes.set_ylim(bottom, top)

        def text(x: float, y: float, align: str) -> Any:
            return figure.text(
                x / WIDTH_PX, 1 - y / HEIGHT_PX, "", size=_TEXT_PT, ha=align, va="center", parse_math=False
            )

        self._title = text(_LEFT, 9, "left")
        self._strip = text(_LEFT - 12, sum(_STRIP) / 2, "right")
        self._rate = [text(_LEFT - 12, _RATE[0] + offset, "right") for offset in (8, 22)]

    def draw(self, words: _Words) -> np.ndarray:
        """All but the content of the three parts: palette indices, uint8, shape (HEIGHT_PX, WIDTH_PX)."""
        self._title.set_text(words.title)
        self._strip.set_text(words.strip)
        for line, shown in zip(self._rate, ("mean rate" if words.rate else "", words.rate), strict=True):
            line.set_text(shown)
        self._axes.set_xlim(*words.x_limits)
        self._axes.set_xlabel(words.x_label, size=_TEXT_PT, labelpad=1)
        places, labels = zip(*words.units, strict=True) if words.units else ((), ())
        self._axes.set_yticks(places, labels, parse_math=False)
        self._canvas.draw()
        return _INKS[np.asarray(Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("L"))]


_axes = lru_cache(_Axes)


@lru_cache(maxsize=32)
def _frame(words: _Words) -> np.ndarray:
    """What `_Axes` draws, kept: a published folder's rasters are drawn twice, for its card and for Dagster's UI."""
    frame = _axes().draw(words)
    frame.flags.writeable = False
    return frame


def _unit_labels(sample: RasterSample) -> dict[float, str]:
    """Labels of the bands that are tall enough, by their middle in pixels, or the number of units."""
    if not sample.bands:
        return {sum(_RASTER) / 2: f"{len(sample.counts):,} units\n{sample.ordered}"}
    labels, free = {}, 0.0
    for (label, top, bottom), (_, size) in zip(_band_rows(sample), sample.bands, strict=True):
        middle = (top + bottom) / 2
        if bottom - top >= _LINE_PX and middle - _LINE_PX / 2 >= free:
            short = label if len(label) <= _LABEL_CHARACTERS else f"{label[: _LABEL_CHARACTERS - 2]}.."
            labels[middle] = f"{short} {size:,}"
            free = middle + _LINE_PX / 2
    return labels


def glance_markdown(sample: RasterSample) -> str:
    """Draw the first `_GLANCE_BINS` bins of some units of a sample, black where there is a spike, as inline Markdown.

    Units are taken at equal distances in the order of the sample; the busier they are, the
    fewer are drawn. Returns no picture when even the fewest do not fit.
    """
    piece, alt = sample.counts[:, :_GLANCE_BINS] > 0, f"thumbnail raster of {text(sample.title, 80)}"
    for rows in _GLANCE_UNITS:
        chosen = np.unique(np.linspace(0, len(piece) - 1, min(rows, len(piece))).astype(int))
        caption = f"{len(chosen):,} of {len(piece):,} units, {piece.shape[1]} bins"
        picture = f"{as_markdown(_spikes_png(piece[chosen]), alt)}\n\n{caption}"
        if len(picture) < INLINE_CHARACTERS:
            return picture
    return "too busy to draw so small"


def _spikes_png(spikes: np.ndarray) -> bytes:
    """Draw (n_units, n_bins) of bool, one bit per pixel."""
    unit_px = max(_GLANCE_HEIGHT_PX // len(spikes), 1)
    pixels = ~np.kron(spikes, np.ones((unit_px, _GLANCE_BIN_PX), bool))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return file.getvalue()


def motifs_png(patches: np.ndarray, probabilities: Sequence[float], bin_width_s: float | None = None) -> bytes:
    """Draw motifs in order, each with its share of all patches, and return a gray PNG.

    A row of cells is a unit, a column a bin. Darker means more spikes, whose number stands in the cell. The same
    motifs give the same picture of 5 to 30 kB. One thread of a process may draw at a time.

    Parameters
    ----------
    patches : numpy.ndarray, uint8, shape (n, n_units, n_bins)
        The most frequent first; the first `N_MOTIFS` are drawn.
    probabilities : sequence of float
        Share of all patches, of each.
    bin_width_s : float, optional
        For the words below the picture.
    """
    shown = patches[:N_MOTIFS]
    n_units, n_bins = patches.shape[1:]
    panel = WIDTH_PX // _COLUMNS
    side = min((panel - 2 * _MARGIN_PX) / n_bins, _MOST_PX, _TALLEST_PX / n_units)
    height = _TITLE_PX + side * n_units + _MARGIN_PX
    rows = max(-(-len(shown) // _COLUMNS), 1)
    total = round(rows * height + _FOOT_PX)
    figure = Figure(figsize=(WIDTH_PX / _DPI, total / _DPI), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), frameon=False)
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH_PX)
    axes.set_ylim(total, 0)
    most = max(int(shown.max()) if shown.size else 0, 1)
    for number, (patch, share) in enumerate(zip(shown, probabilities[: len(shown)], strict=True)):
        left = (number % _COLUMNS) * panel + _MARGIN_PX
        top = (number // _COLUMNS) * height + _TITLE_PX
        words = f"{number + 1}.  {share:.2%}" + ("  silence" if not patch.any() else "")
        axes.text(left, top - 3, words, size=_TEXT_PT, va="bottom", parse_math=False)
        edges_x, edges_y = left + side * np.arange(n_bins + 1), top + side * np.arange(n_units + 1)
        shades = np.sqrt(patch / most)
        axes.pcolormesh(edges_x, edges_y, shades, cmap="Greys", vmin=0, vmax=1.15, edgecolors="0.75", linewidth=0.4)
        if side >= 9:
            for unit, bin in np.argwhere(patch):
                axes.text(
                    edges_x[bin] + side / 2,
                    edges_y[unit] + side / 2,
                    str(patch[unit, bin]),
                    size=min(_TEXT_PT, side / 2),
                    ha="center",
                    va="center_baseline",
                    color="white" if shades[unit, bin] > 0.55 else "black",
                )
    width = f" of {bin_width_s * 1000:g} ms" if bin_width_s else ""
    words = f"share of all patches; a row is a unit, a column a bin{width}; numbers are spikes"
    axes.text(_MARGIN_PX, total - 7, words, size=_TEXT_PT, va="bottom", color="0.35", parse_math=False)
    canvas.draw()
    gray = np.asarray(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("L"))
    return palette_png(np.rint(gray * ((_MOTIF_GRAYS - 1) / 255)).astype(np.uint8), _MOTIF_PALETTE)
