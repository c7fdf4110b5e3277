"""Small pictures: thumbnail rasters, which Dagster's UI shows without a click, and the most frequent motifs of a pile.

The picture of motifs is small enough for Dagster's event log and a card; which motifs these are is decided in
`motifs.table`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from neuralpile_dagster.markdown import text
from neuralpile_dagster.plots.raster import as_markdown, palette_png
from neuralpile_dagster.plots.window import RasterSample

INLINE_CHARACTERS = 1000
"""Characters of Markdown from which Dagster 1.13 shows a link "[Show Markdown]" instead of the content."""
_BINS = 180
_BIN_PX = 2
_HEIGHT_PX = 96
_UNIT_ROWS = (32, 24, 16, 12, 8, 4)
"""Possible numbers of units of a thumbnail; the largest that fits is used. Divisors of `_HEIGHT_PX`."""
N_MOTIFS = 16
"""Motifs of a picture, in four columns."""
WIDTH_PX = 800
"""Width of the picture of motifs."""
_COLUMNS, _MARGIN_PX, _TITLE_PX, _FOOT_PX = 4, 8, 18, 24
_MOST_PX, _TALLEST_PX = 22, 320
"""Side of a cell, and height of a motif, at most."""
_DPI, _TEXT_PT = 100, 7.5
_GRAYS = 16
_PALETTE = [value for gray in range(_GRAYS) for value in [gray * 255 // (_GRAYS - 1)] * 3]


def glance_markdown(sample: RasterSample) -> str:
    """Draw the first `_BINS` bins of some units of a sample, black where there is a spike, as inline Markdown.

    Units are taken at equal distances in the order of the sample; the busier they are, the
    fewer are drawn. Returns no picture when even the fewest do not fit.
    """
    piece, alt = sample.counts[:, :_BINS] > 0, f"thumbnail raster of {text(sample.title, 80)}"
    for rows in _UNIT_ROWS:
        chosen = np.unique(np.linspace(0, len(piece) - 1, min(rows, len(piece))).astype(int))
        caption = f"{len(chosen):,} of {len(piece):,} units, {piece.shape[1]} bins"
        picture = f"{as_markdown(_spikes_png(piece[chosen]), alt)}\n\n{caption}"
        if len(picture) < INLINE_CHARACTERS:
            return picture
    return "too busy to draw so small"


def _spikes_png(spikes: np.ndarray) -> bytes:
    """Draw (n_units, n_bins) of bool, one bit per pixel."""
    unit_px = max(_HEIGHT_PX // len(spikes), 1)
    pixels = ~np.kron(spikes, np.ones((unit_px, _BIN_PX), bool))
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
    return palette_png(np.rint(gray * ((_GRAYS - 1) / 255)).astype(np.uint8), _PALETTE)
