"""Rows of what is made of a pile's motifs: their buckets, table, vocabulary and map, the pile as tokens, repositories.

One of each for every shape, and every size of vocabulary, that the pile's configuration names. Which histograms are
summed is decided in `ledger.motifs`; computing belongs in the room `motifs`, what a repository holds in `publish`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from neuralpile_dagster.catalog.piles import Pile, short_size
from neuralpile_dagster.ledger import motifs
from neuralpile_dagster.ledger.analyses import motif_analysis
from neuralpile_dagster.ledger.kinds import PILE_MANIFEST, PILE_SHARDS
from neuralpile_dagster.ledger.pile_analyses import (
    Number,
    PileAnalysis,
    PileTask,
    PlannedPile,
    Rows,
    bin_widths_s,
    hash_of,
    publication,
    publish,
    repository_of,
)
from neuralpile_dagster.motifs.records import (
    MOTIFS_VERSION,
    BucketRecord,
    MapRecord,
    MotifShape,
    TableRecord,
    TokenShardRecord,
    VocabularyRecord,
)
from neuralpile_dagster.records import PublicationRecord, json_hash
from neuralpile_dagster.settings import ProcessSettings

if TYPE_CHECKING:
    from neuralpile_dagster.motifs.tokens import Tokenizer

BUCKETS_PER_RUN = 16
"""Each takes seconds of a whole pile, its map a minute."""
TOKENS_VERSION = "tokens-1"
"""Code version of vocabularies, maps and tokens; a new one makes all of them out of date."""
TABLE_FORMAT, TOKENS_FORMAT = 1, 1
"""Code versions of the repositories' other files; a new one publishes them again."""


def motif_rows(pile: Pile) -> tuple[PileAnalysis, ...]:
    """Rows of every shape, and of every size of vocabulary, that a pile's configuration names."""
    top, shapes = pile.motif_table_rows, [MotifShape(*shape) for shape in pile.motif_shapes]
    rows: list[PileAnalysis] = []
    for shape in shapes:
        rows += [buckets_row(shape), table_row(shape, top), table_repository(shape, top)]
    for of in (TokensOf(shape, top, size) for shape in shapes for size in pile.vocabulary_sizes):
        rows += [vocabulary_row(of), map_row(of), tokens_row(of), tokens_repository(of)]
    return tuple(rows)


FAMILIES: tuple[Callable[[Pile], tuple[PileAnalysis, ...]], ...] = (motif_rows,)
"""Each gives the rows that a pile's configuration asks for, upstream rows first."""


def pile_analyses_of(pile: Pile) -> tuple[PileAnalysis, ...]:
    """The kinds of asset made of a pile, upstream ones first; none unless its configuration asks for them."""
    return tuple(row for family in FAMILIES for row in family(pile))


def _numbers_of_shape(shape: MotifShape) -> str:
    return f"{shape.n_units} x {shape.n_bins} (units x bins)"


@cache
def buckets_row(shape: MotifShape) -> PileAnalysis:
    """Sums of the histograms of what the pile trains on, in 64 parts."""

    def make(task: PileTask) -> BucketRecord:
        return motifs.make_bucket(motifs.task_of(task, shape), task.folder, task.key)

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
        waits=lambda of: motifs.without_histogram(of, shape),
        numbers=lambda record: {"motifs": record.motifs, "patches": record.patches, "spikes": record.spikes},
        per_run=BUCKETS_PER_RUN,
    )


@cache
def table_row(shape: MotifShape, top: int) -> PileAnalysis:
    """The ``top`` most frequent motifs of all buckets."""
    buckets = buckets_row(shape)

    def make(task: PileTask) -> TableRecord:
        folder = buckets.folder(task.of.pile, task.of.settings)
        return motifs.make_table(motifs.task_of(task, shape), task.path, folder, top)

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
        numbers=_table_numbers,
        tables=_coverage,
        pictures=_figure,
        checks="motifs",
    )


def _table_numbers(record: TableRecord) -> dict[str, Number]:
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
    from neuralpile_dagster.plots.raster import N_MOTIFS, as_markdown, motifs_png

    patches, _, probabilities = read_top(of.store, record, N_MOTIFS)
    png = motifs_png(patches, probabilities.tolist(), of.settings.bin_width_s)
    return {"most_frequent": as_markdown(png, f"the {len(patches)} most frequent motifs")}


@cache
def table_repository(shape: MotifShape, top: int) -> PileAnalysis:
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


@dataclass(frozen=True)
class TokensOf:
    """What is tokenized how: motifs of a shape, of a table of so many rows, with a vocabulary of a size."""

    shape: MotifShape
    table_rows: int
    size: int

    @property
    def name(self) -> str:
        """End of the names of its assets and repository, e.g. ``1x15_32k``."""
        return f"{self.shape.name}_{short_size(self.size)}"


@cache
def vocabulary_row(tokens_of: TokensOf) -> PileAnalysis:
    """The most frequent motifs, numbered."""
    shape, size = tokens_of.shape, tokens_of.size
    table = table_row(shape, tokens_of.table_rows)

    def inputs(of: PlannedPile, key: str) -> str | None:
        record: TableRecord | None = of.upstream(table)
        return None if record is None else json_hash([TOKENS_VERSION, "vocabulary", record.file.sha256, size])

    def make(task: PileTask) -> VocabularyRecord:
        from neuralpile_dagster.motifs.vocabulary import build_vocabulary

        record: TableRecord = task.of.upstream(table)
        widths = bin_widths_s(task.of)
        return build_vocabulary(
            task.of.store,
            task.folder,
            record.file,
            shape=shape,
            size=size,
            plan_id=task.of.plan.plan_id,
            inputs=task.inputs,
            bin_width_s=widths[0] if len(widths) == 1 else None,
        )

    return PileAnalysis(
        name=f"motif_vocabulary_{tokens_of.name}",
        text=(
            f"The {size - 1:,} most frequent motifs of {shape.name}, numbered from 0, and a separator: a vocabulary of "
            f"{size:,} tokens. `tokenizer.json` and `vocabulary.parquet` are all that encoding and decoding need."
        ),
        badges=frozenset({"parquet", "json"}),
        version=TOKENS_VERSION,
        upstream=(table,),
        record=VocabularyRecord,
        inputs=inputs,
        make=make,
        numbers=_vocabulary_numbers,
    )


def _vocabulary_numbers(record: VocabularyRecord) -> dict[str, Number]:
    return {"motifs": record.motifs, "size": record.size, "coverage": round(record.coverage, 8)}


@cache
def map_row(tokens_of: TokensOf) -> PileAnalysis:
    """The token of every motif of the pile, in 64 parts."""
    vocabulary, buckets = vocabulary_row(tokens_of), buckets_row(tokens_of.shape)

    def inputs(of: PlannedPile, key: str) -> str | None:
        known: VocabularyRecord | None = of.upstream(vocabulary)
        bucket: BucketRecord | None = of.upstream(buckets, key)
        if known is None or bucket is None:
            return None
        return json_hash([TOKENS_VERSION, "map", known.file.sha256, bucket.file.sha256])

    def make(task: PileTask) -> MapRecord:
        from neuralpile_dagster.motifs.token_files import build_map
        from neuralpile_dagster.motifs.vocabulary import read_vocabulary

        of, bucket = task.of, task.of.upstream(buckets, task.key)
        read = of.kept(("vocabulary", tokens_of), lambda: read_vocabulary(of.store, of.upstream(vocabulary)))
        threads = ProcessSettings.from_environment().threads
        return build_map(of.store, task.folder, task.key, bucket.file, read, inputs=task.inputs, threads=threads)

    return PileAnalysis(
        name=f"motif_map_{tokens_of.name}",
        text=(
            "The token of every motif of the pile's train split: its own where it is in the vocabulary, else that of "
            "the motif with the largest cosine similarity, compared exactly. One partition is one of 64 parts."
        ),
        badges=frozenset({"numpy"}),
        version=TOKENS_VERSION,
        partitions="buckets",
        upstream=(vocabulary, buckets),
        record=MapRecord,
        inputs=inputs,
        make=make,
        numbers=_map_numbers,
        per_run=BUCKETS_PER_RUN,
    )


def _map_numbers(record: MapRecord) -> dict[str, Number]:
    names = ("motifs", "tail_motifs", "patches", "tail_patches", "silenced_patches", "spikes", "spikes_decoded")
    return {name: getattr(record, name) for name in names}


@cache
def tokens_row(tokens_of: TokensOf) -> PileAnalysis:
    """The pile's shards as tokens."""
    vocabulary, maps = vocabulary_row(tokens_of), map_row(tokens_of)

    def inputs(of: PlannedPile, key: str) -> str | None:
        known: VocabularyRecord | None = of.upstream(vocabulary)
        return None if known is None else json_hash([TOKENS_VERSION, "tokens", of.plan.digest, known.file.sha256])

    def tokenizer(of: PlannedPile) -> Tokenizer:
        from neuralpile_dagster.motifs.token_files import Maps
        from neuralpile_dagster.motifs.tokens import Tokenizer
        from neuralpile_dagster.motifs.vocabulary import read_vocabulary

        known = Maps(of.store, list(of.records(maps).values()))
        return Tokenizer(read_vocabulary(of.store, of.upstream(vocabulary)), known)

    def make(task: PileTask) -> TokenShardRecord:
        from neuralpile_dagster.motifs.token_files import build_token_shard

        of, shard = task.of, task.of.shards[task.key].file
        encoder = of.kept(("tokenizer", tokens_of), lambda: tokenizer(of))
        return build_token_shard(of.store, task.folder, task.key, shard, encoder, inputs=task.inputs)

    return PileAnalysis(
        name=f"tokens_{tokens_of.name}",
        text=(
            f"The pile's rows as tokens of {tokens_of.shape.name} motifs, vocabulary of {tokens_of.size:,}: the same "
            "rows in the same order, shard by shard. One partition is one shard; leave those of older plans alone."
        ),
        badges=frozenset({"parquet", "numpy"}),
        version=TOKENS_VERSION,
        partitions="shards",
        upstream=(PILE_SHARDS, vocabulary, maps),
        record=TokenShardRecord,
        inputs=inputs,
        make=make,
        numbers=_token_numbers,
    )


def _token_numbers(record: TokenShardRecord) -> dict[str, Number]:
    share = record.exact_tokens / max(record.tokens, 1)
    return {"tokens": record.tokens, "rows": record.rows, "decoded_as_they_were": round(share, 8)}


@cache
def tokens_repository(tokens_of: TokensOf) -> PileAnalysis:
    """The repository of the tokenized pile."""
    vocabulary, maps, tokens = vocabulary_row(tokens_of), map_row(tokens_of), tokens_row(tokens_of)
    ending = tokens_of.name.replace("_", "-")

    def inputs(of: PlannedPile, key: str) -> str | None:
        known: VocabularyRecord | None = of.upstream(vocabulary)
        return None if known is None else hash_of(of, ending, TOKENS_FORMAT, known.tokenizer_file.sha256)

    def make(task: PileTask) -> PublicationRecord:
        from neuralpile_dagster.publish.tokens import write_tokens

        of = task.of
        made: dict[str, TokenShardRecord] = of.records(tokens)
        shards: dict[str, list[Any]] = {}
        for shard in of.plan.shards:
            shards.setdefault(shard.split, []).append(made[shard.name])
        return publish(
            task,
            ending,
            lambda folder, about: write_tokens(
                folder,
                of.store,
                about,
                shards,
                of.upstream(vocabulary),
                list(of.records(maps).values()),
                motif_table=repository_of(of, tokens_of.shape.name),
                progress=task.progress,
            ),
        )

    return publication(
        "tokens_hub_dataset",
        tokens_of.name,
        text=(
            f"The tokenized pile, published as `<pile>-{ending}`: shards of tokens parallel to the pile's, the "
            "vocabulary, `tokenizer.json`, and a card that says what encoding loses."
        ),
        made_from=tokens,
        inputs=inputs,
        make=make,
    )
