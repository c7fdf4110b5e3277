"""A pile's motif table as a folder of files, ready to publish; and what the cards of motifs and of tokens share.

Counting motifs belongs in `motifs`; the repository of a tokenized pile is in `tokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from neuralpile_dagster.files import explained, locked, write_bytes
from neuralpile_dagster.markdown import link, table, text
from neuralpile_dagster.motifs.records import MotifShape, TableRecord
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.publish.card import PROGRAM, warning
from neuralpile_dagster.publish.card_parts import Config, Split, card_text
from neuralpile_dagster.publish.component import keep_only
from neuralpile_dagster.publish.configs import config_of_file, config_path
from neuralpile_dagster.records import ShardRecord
from neuralpile_dagster.store import Store, fetch
from neuralpile_dagster.tables.schemas import MOTIF_TABLE_SCHEMA

PICTURE = "motifs.png"
TAGS = ("neuroscience", "electrophysiology", "spike-counts", "motifs", "neural-population-activity")


@dataclass(frozen=True)
class OfPile:
    """A repository that is made of a published pile.

    Attributes
    ----------
    repository, pile : str
        ``namespace/name`` of this repository and of the pile's.
    title : str
        Of the pile.
    plan : str
        Digest of the pile's plan.
    bin_width_s : float
        Of the instance.
    other_bin_widths_s : sequence of float
        Of sessions whose datasets allow them (`allow_bin_width`).
    synthetic : sequence of str
        Components that are synthetic.
    licenses : sequence of str
        The Hub's identifiers of the licenses of all components; empty where one is not known.
    page : callable
        Web page of a repository by its name, or None.
    """

    repository: str
    pile: str
    title: str
    plan: str
    bin_width_s: float
    other_bin_widths_s: Sequence[float] = ()
    synthetic: Sequence[str] = ()
    licenses: Sequence[str] = ()
    page: Callable[[str], str | None] = field(default=lambda _: None)

    @property
    def pile_url(self) -> str | None:
        """Web page of the pile."""
        return self.url_of(self.pile)

    def url_of(self, repository: str) -> str | None:
        """Web page of a repository of the same owner."""
        return self.page(repository.rpartition("/")[2])


def bin_width(of: OfPile) -> str:
    """Sentence of a card on how long a bin is."""
    sentence = f"A bin is {of.bin_width_s * 1000:g} ms."
    if of.other_bin_widths_s:
        others = " or ".join(f"{width * 1000:g} ms" for width in of.other_bin_widths_s)
        sentence += f" In some sessions it is {others}: the pile's config `sessions` has the `bin_width_s` of each."
    return sentence


def card_of(of: OfPile, title: str, lines: Iterable[str], configs: Sequence[Config], name: str, n_rows: int) -> str:
    """Text of a card: its ``title`` and ``name`` follow those of the pile; it ends with what to cite."""
    synthetic = (
        f"SYNTHETIC: made by a program to test this software, not neural data: {', '.join(map(text, of.synthetic))}."
    )
    every = [
        *[f"# {text(of.title)}: {text(title)}", ""],
        *(warning(synthetic) if of.synthetic else []),
        *lines,
        *["## Cite", ""],
        f"Please cite the sources of the components that the card of {link(of.pile, of.pile_url)} names; its "
        f"`CITATION.bib` has an entry for each. Made by {PROGRAM} of plan {text(of.plan[:8])} of that pile.",
    ]
    return card_text(
        every,
        configs,
        pretty_name=f"{of.title}: {name}",
        licenses=of.licenses,
        tags=TAGS,
        synthetic=bool(of.synthetic),
        n_rows=n_rows,
    )


def write_motif_table(
    folder: Path, store: Store, of: OfPile, record: TableRecord, progress: Progress = print
) -> tuple[ShardRecord, ...]:
    """Make ``folder`` hold exactly the files of a motif table's repository; the same inputs give the same bytes.

    Parameters
    ----------
    folder : Path
        Given over to this function: other files in it are removed.
    store : Store
    of : OfPile
        The repository, and the pile whose motifs were counted.
    record : TableRecord
    progress : callable

    Raises
    ------
    StoreError, TableError
        A file is damaged or gone; names it.
    """
    from neuralpile_dagster.motifs.table import read_top
    from neuralpile_dagster.plots.raster import N_MOTIFS, motifs_png

    shape = MotifShape(*record.shape)
    with explained(folder), locked(folder.parent / f".{folder.name}.lock", progress, f"{folder.name} is being made"):
        path, tail_path = f"data/train-00000-{record.file.sha256[:8]}.parquet", config_path("tail")
        fetch(store, record.file, folder / path)
        fetch(store, record.tail_file, folder / tail_path)
        default = Split("data/train-*", record.rows, record.rows * (shape.cells + 4 + 8 + 8) + 4)
        configs = [
            Config("default", MOTIF_TABLE_SCHEMA, {"train": default}, record.file.size),
            config_of_file(folder, "tail", tail_path),
        ]
        lines = [
            *_what(of, shape, record),
            *["", f"![The most frequent motifs]({PICTURE})", "", _PICTURE_TEXT, ""],
            *["## Numbers", "", *_numbers(of, record), ""],
            *["## Coverage", "", *_coverage(record), ""],
            *["## Columns", "", *_columns(shape, record), ""],
            *["## Use", "", *_use(of.repository, shape), ""],
        ]
        name = f"motifs of {shape.name}"
        card = card_of(of, name, lines, configs, name, record.rows)
        write_bytes(folder / "README.md", card.encode())
        patches, _, probabilities = read_top(store, record, N_MOTIFS)
        write_bytes(folder / PICTURE, motifs_png(patches, probabilities.tolist(), of.bin_width_s))
        keep_only(folder, ["README.md", PICTURE, path, tail_path])
    file = record.file
    return (ShardRecord(path=path, rows=record.rows, tokens=0, bytes=file.size, sha256=file.sha256),)


_PICTURE_TEXT = (
    "The most frequent motifs in order, with their probabilities; silence is among them. Darker means more spikes; in "
    "each, units lie below each other and time runs to the right."
)


def _what(of: OfPile, shape: MotifShape, record: TableRecord) -> list[str]:
    units = "1 unit" if shape.n_units == 1 else f"{shape.n_units} units"
    every = "all motifs" if record.rows == record.motifs else f"the {record.rows:,} most frequent of {record.motifs:,}"
    return [
        f"Every row of the train split of {link(of.pile, of.pile_url)} is padded at its end with silent units and bins "
        f"and cut into patches of {units} x {shape.n_bins} bins that do not overlap. {bin_width(of)} A *motif* is a "
        f"patch that differs from all others. These are {every}: how often each occurs, most frequent first, of equal "
        "ones the smaller bytes first.",
    ]


def _numbers(of: OfPile, record: TableRecord) -> list[str]:
    share = record.silent / max(record.patches, 1)
    rows = [
        ("patches", f"{record.patches:,}"),
        ("patches without a spike", f"{record.silent:,} ({share:.4%})"),
        ("different motifs", f"{record.motifs:,}"),
        ("rows of this table", f"{record.rows:,}"),
        ("spikes in all patches", f"{record.spikes:,}"),
        ("tokens (one unit in one bin) of the train split", f"{record.trained.tokens:,}"),
        ("rows (segments) of the train split", f"{record.trained.rows:,}"),
        ("plan of the pile", text(of.plan[:8])),
    ]
    return table(["", ""], rows)


def _coverage(record: TableRecord) -> list[str]:
    rows = [(f"{n:,}", f"{share:.6%}") for n, share in record.stated_coverage]
    note = "Rows and bins that pad a row count as silence."
    more = "" if record.rows == record.motifs else " The probabilities of the rows here do not sum to 1."
    return [
        *table(["the first motifs", "share of all patches that are one of them"], rows),
        "",
        f"Probabilities are over all {record.patches:,} patches, silent ones included.{more} {note}",
    ]


def _columns(shape: MotifShape, record: TableRecord) -> list[str]:
    return [
        f"- `patch`: `list<uint8>`, the {shape.cells} counts of the motif, unit after unit",
        "- `frequency`: `int64`, how many patches are this motif",
        f"- `probability`: `double`, their share of all {record.patches:,} patches",
        "",
        "The config `tail` says how many motifs occur once, twice, 3 to 10 times, 11 to 100 times, and so on "
        "(`least_frequency` to `greatest_frequency`), how many patches these are, and their share of all.",
    ]


def _use(repository: str, shape: MotifShape) -> list[str]:
    return f"""\
```python
# pip install huggingface_hub pandas pyarrow
import numpy as np
import pandas as pd

repository = "hf://datasets/{repository}"  # or the folder of a local copy
motifs = pd.read_parquet(f"{{repository}}/data")
patches = np.stack(motifs["patch"].to_numpy()).reshape(-1, {shape.n_units}, {shape.n_bins})  # motifs x units x bins
print(patches[:3], motifs["probability"].cumsum().iloc[:3])
```""".splitlines()
