"""Rows of a tokenized pile: vocabulary, map of all other motifs, shards of tokens, and their publication.

One of each for every shape and size of vocabulary that the pile's configuration names. What is computed belongs in the
room `motifs`, the repository in `publish.tokens`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from neuralpile_dagster.catalog.piles import Pile, short_size
from neuralpile_dagster.ledger.kinds import PILE_SHARDS
from neuralpile_dagster.ledger.pile_analyses.model import (
    Number,
    PileAnalysis,
    PileTask,
    PlannedPile,
    bin_widths_s,
    hash_of,
    publication,
    publish,
)
from neuralpile_dagster.ledger.pile_analyses.motifs import (
    BUCKETS_PER_RUN,
    buckets_row,
    published_table,
    shape_of,
    table_row,
)
from neuralpile_dagster.motifs.records import (
    BucketRecord,
    MapRecord,
    MotifShape,
    TableRecord,
    TokenShardRecord,
    VocabularyRecord,
)
from neuralpile_dagster.records import PublicationRecord
from neuralpile_dagster.settings import ProcessSettings

if TYPE_CHECKING:
    from neuralpile_dagster.motifs.tokens import Tokenizer

VERSION = "tokens-1"
"""Code version of vocabularies, maps and tokens; a new one makes all of them out of date."""
TOKENS_FORMAT = 1
"""Code version of the repository's other files; a new one publishes it again."""


def token_rows(pile: Pile) -> tuple[PileAnalysis, ...]:
    """Rows of every shape and size of vocabulary that a pile's configuration names."""
    of = [
        TokensOf(shape_of(shape), pile.motif_table_rows, size)
        for shape in pile.motif_shapes
        for size in pile.vocabulary_sizes
    ]
    return tuple(row(tokens) for tokens in of for row in (vocabulary_row, map_row, tokens_row, publication_row))


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


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()


@cache
def vocabulary_row(tokens_of: TokensOf) -> PileAnalysis:
    """The most frequent motifs, numbered."""
    shape, size = tokens_of.shape, tokens_of.size
    table = table_row(shape, tokens_of.table_rows)

    def inputs(of: PlannedPile, key: str) -> str | None:
        record: TableRecord | None = of.upstream(table)
        return None if record is None else _hash("vocabulary", record.file.sha256, size)

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
        version=VERSION,
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
        return None if known is None or bucket is None else _hash("map", known.file.sha256, bucket.file.sha256)

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
        version=VERSION,
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
        return None if known is None else _hash("tokens", of.plan.digest, known.file.sha256)

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
        version=VERSION,
        partitions="shards",
        upstream=(PILE_SHARDS, vocabulary, maps),
        record=TokenShardRecord,
        inputs=inputs,
        make=make,
        numbers=_token_numbers,
        per_run=10,
    )


def _token_numbers(record: TokenShardRecord) -> dict[str, Number]:
    share = record.exact_tokens / max(record.tokens, 1)
    return {"tokens": record.tokens, "rows": record.rows, "decoded_as_they_were": round(share, 8)}


@cache
def publication_row(tokens_of: TokensOf) -> PileAnalysis:
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
                motif_table=published_table(of, tokens_of.shape),
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
