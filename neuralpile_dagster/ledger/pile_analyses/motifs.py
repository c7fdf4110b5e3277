"""Rows of a pile's motifs: buckets of all motifs that it trains on, their table, and the table's publication.

One of each for every shape that the pile's configuration names. Which histograms are summed is decided in
`ledger.motifs`; counting belongs in the room `motifs`, the repository in `publish.motif_table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.ledger import motifs, piles
from neuralpile_dagster.ledger.analyses import motif_analysis
from neuralpile_dagster.ledger.kinds import PILE_MANIFEST
from neuralpile_dagster.ledger.pile_analyses.model import (
    Number,
    PileAnalysis,
    PileTask,
    PlannedPile,
    Rows,
    hash_of,
    publication,
    publish,
    repository_of,
)
from neuralpile_dagster.motifs.records import MOTIFS_VERSION, BucketRecord, MotifShape, TableRecord
from neuralpile_dagster.records import PublicationRecord

BUCKETS_PER_RUN = 16
"""Each takes seconds of a whole pile, its map a minute."""
TABLE_FORMAT = 1
"""Code version of the repository's files; a new one publishes it again."""


def motif_rows(pile: Pile) -> tuple[PileAnalysis, ...]:
    """Rows of every shape that a pile's configuration names."""
    rows = []
    for shape in map(shape_of, pile.motif_shapes):
        rows += [buckets_row(shape), table_row(shape, pile.motif_table_rows)]
        rows.append(publication_row(shape, pile.motif_table_rows))
    return tuple(rows)


def shape_of(shape: tuple[int, int]) -> MotifShape:
    """A shape as a pile's configuration states it."""
    return MotifShape(*shape)


def _numbers_of_shape(shape: MotifShape) -> str:
    return f"{shape.n_units} x {shape.n_bins} (units x bins)"


@cache
def buckets_row(shape: MotifShape) -> PileAnalysis:
    """Sums of the histograms of what the pile trains on, in 64 parts."""

    def make(task: PileTask) -> BucketRecord:
        return motifs.make_bucket(_motif_task(task, shape), task.folder, task.key)

    return PileAnalysis(
        name=f"motif_buckets_{shape.name}",
        text=(
            f"How often each motif of {_numbers_of_shape(shape)} occurs in the pile's train split: sums of the "
            "sessions' `motifs`, without what is not trained on. One partition is one of 64 parts of all motifs."
        ),
        badges=frozenset({"parquet", "numpy"}),
        version=MOTIFS_VERSION,
        partitions="buckets",
        upstream=(PILE_MANIFEST,),
        of_members=(motif_analysis(shape).name,),
        record=BucketRecord,
        inputs=lambda of, key: motifs.bucket_inputs(of.plan, shape),
        make=make,
        waits=lambda of: _without_histogram(of, shape),
        numbers=lambda record: {"motifs": record.motifs, "patches": record.patches, "spikes": record.spikes},
        per_run=BUCKETS_PER_RUN,
    )


def _motif_task(task: PileTask, shape: MotifShape) -> motifs.MotifTask:
    of = task.of

    def make() -> motifs.MotifTask:
        hub = task.open_hub()
        return motifs.MotifTask(
            of.store,
            of.pile,
            of.settings,
            shape,
            of.planned,
            piles.file_opener(of.store, hub),
            piles.file_digests(of.store, hub),
            task.progress,
        )

    return of.kept(("motif task", shape), make)


def _without_histogram(of: PlannedPile, shape: MotifShape) -> str:
    """Why the sessions cannot be summed yet: the first whose histogram is missing or not of the planned counts."""
    try:
        _ = motifs.MotifTask(of.store, of.pile, of.settings, shape, of.planned, of.store.open).sessions
    except ConfigurationError as error:
        return f"{error.what}; {error.remedy}"
    return ""


@cache
def table_row(shape: MotifShape, top: int) -> PileAnalysis:
    """The ``top`` most frequent motifs of all buckets."""
    buckets = buckets_row(shape)

    def make(task: PileTask) -> TableRecord:
        folder = buckets.folder(task.of.pile, task.of.settings)
        return motifs.make_table(_motif_task(task, shape), task.path, folder, top)

    return PileAnalysis(
        name=f"motifs_{shape.name}",
        text=(
            f"The {top:,} most frequent motifs of {_numbers_of_shape(shape)} of the pile's train split, silence among "
            "them, with their frequencies and shares of all patches; and how many motifs have which frequency."
        ),
        badges=frozenset({"parquet"}),
        version=MOTIFS_VERSION,
        upstream=(buckets,),
        record=TableRecord,
        inputs=lambda of, key: motifs.table_inputs(of.plan, shape, top),
        make=make,
        numbers=table_numbers,
        tables=_coverage,
        pictures=_figure,
        checks="motifs",
    )


def table_numbers(record: TableRecord) -> dict[str, Number]:
    """Numbers of a motif table."""
    return {
        "motifs": record.motifs,
        "rows": record.rows,
        "patches": record.patches,
        "silent_patches": record.silent,
        "share_of_silence": round(record.silent / max(record.patches, 1), 6),
        "spikes": record.spikes,
        "tokens": record.trained.tokens,
        "sessions": record.trained.histograms,
    }


def _coverage(record: TableRecord) -> dict[str, Rows]:
    rows = [{"first motifs": f"{n:,}", "share of all patches": f"{share:.6%}"} for n, share in record.stated_coverage]
    return {"coverage": rows}


def _figure(of: PlannedPile, record: TableRecord) -> Mapping[str, str]:
    from neuralpile_dagster.motifs.table import read_top
    from neuralpile_dagster.plots.raster import as_markdown
    from neuralpile_dagster.plots.small import N_MOTIFS, motifs_png

    patches, _, probabilities = read_top(of.store, record, N_MOTIFS)
    png = motifs_png(patches, probabilities.tolist(), of.settings.bin_width_s)
    return {"most_frequent": as_markdown(png, f"the {len(patches)} most frequent motifs")}


@cache
def publication_row(shape: MotifShape, top: int) -> PileAnalysis:
    """The repository of the table."""
    table = table_row(shape, top)

    def inputs(of: PlannedPile, key: str) -> str | None:
        record: TableRecord | None = of.upstream(table)
        if record is None:
            return None
        return hash_of(of, shape.name, TABLE_FORMAT, record.file.sha256, record.tail_file.sha256)

    def make(task: PileTask) -> PublicationRecord:
        from neuralpile_dagster.publish.motif_table import write_motif_table

        record: TableRecord = task.of.upstream(table)
        return publish(
            task,
            shape.name,
            lambda folder, about: write_motif_table(folder, task.of.store, about, record, progress=task.progress),
        )

    return publication(
        "motifs_hub_dataset",
        shape.name,
        text=(
            f"The table of motifs of {_numbers_of_shape(shape)}, published as `<pile>-{shape.name}`: the columns "
            "`patch`, `frequency` and `probability`, a config `tail`, a card with a figure and the coverage of the "
            "first motifs."
        ),
        made_from=table,
        inputs=inputs,
        make=make,
    )


def published_table(of: PlannedPile, shape: MotifShape) -> str:
    """Repository of the motif table, ``namespace/name``."""
    return repository_of(of, shape.name)
