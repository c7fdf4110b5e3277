"""Checks of a pile's motifs and tokens. One function is one check, listed in `registry`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from neuralpile_dagster.checks.model import Verdict, capped
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.hub import Hub
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.motifs import MotifTask
from neuralpile_dagster.ledger.pile_analyses import PileAnalysis, PlannedPile
from neuralpile_dagster.motifs.records import MotifShape, TableRecord
from neuralpile_dagster.publish.token_counts import counts_by_split
from neuralpile_dagster.store import open_verified
from neuralpile_dagster.tables.footer import damaged, open_parquet
from neuralpile_dagster.tables.rows import RowReader

SESSIONS_SHARE = 0.01
"""Share of the sessions whose silent patches are counted again."""
ROWS_DECODED = 4
"""Rows of tokens that are decoded: of the first and the last shard of each split."""
_DEFECT = "this is a defect of counting motifs: report it with the plan's id"


@dataclass(frozen=True)
class MadeEvidence:
    """What the checks of something made of a pile look at: its row, its record, and everything upstream."""

    of: PlannedPile
    row: PileAnalysis
    record: Any
    hub: Hub

    @property
    def repository_name(self) -> str:
        """Name of the repository, of what is published."""
        return str(self.record.repository.rpartition("/")[2])

    @property
    def folder(self) -> Path:
        """Where the publication was laid out."""
        return documents.staging_folder(self.of.settings, self.repository_name)

    def upstream(self, name: str) -> PileAnalysis:
        """The row upstream whose name begins so."""
        return next(row for row in _upstream(self.row) if row.name.startswith(name))


def _upstream(row: PileAnalysis) -> Iterator[PileAnalysis]:
    for upstream in row.upstream_rows():
        yield upstream
        yield from _upstream(upstream)


def read_evidence(of: PlannedPile, row: PileAnalysis, hub: Hub) -> MadeEvidence:
    """Something made of a pile as it is recorded now; raises `ConfigurationError` when it is not made yet."""
    record = of.record(row)
    if record is None:
        raise ConfigurationError(
            f"{of.pile.name} has no {row.name} yet", remedy=f"materialize {of.pile.key}/{row.name}"
        )
    return MadeEvidence(of, row, record, hub)


def frequencies_sum_to_patches(record: TableRecord) -> Verdict:
    """The frequencies of all motifs sum to the patches that the rows of train are cut into."""
    due = record.trained.expected_patches
    return Verdict(
        passed=record.patches == record.trained.patches == due,
        expected=f"{due:,} patches, from units and bins of every row",
        found=f"{record.patches:,} in the table and its tail, {record.trained.patches:,} in the histograms",
        remedy=_DEFECT,
        details={"silent": record.silent, "motifs": record.motifs},
    )


def motif_spikes_conserved(evidence: MadeEvidence) -> Verdict:
    """The spikes in all motifs are those of the rows of train."""
    record: TableRecord = evidence.record
    due = record.trained.expected_spikes
    published = piles.read_published(evidence.of.store, evidence.of.pile, evidence.of.settings)
    found = {"motifs": record.spikes, "histograms": record.trained.spikes}
    if published is not None and published.plan == evidence.of.plan.digest and published.token_counts:
        counts = counts_by_split(published.token_counts)["train"]
        found["token_counts"] = int(counts @ np.arange(len(counts)))
    return Verdict(
        passed=all(spikes == due for spikes in found.values()),
        expected=f"{due:,} spikes, from the records of the sessions",
        found=", ".join(f"{spikes:,} in {name}" for name, spikes in found.items()),
        remedy=_DEFECT,
    )


def silence_counted_again(evidence: MadeEvidence) -> Verdict:
    """The silent patches of some sessions, counted without packing them, are those of their histograms."""
    from neuralpile_dagster.motifs.histogram import count_silent

    of, shape = evidence.of, MotifShape(*evidence.record.shape)
    sessions = MotifTask(of.store, of.pile, of.settings, shape, of.planned, of.store.open).sessions
    names = sorted(sessions)
    chosen = names[:: max(1, round(1 / SESSIONS_SHARE))]
    wrong = []
    for name in chosen:
        with of.store.open(name) as file, RowReader(file, name) as reader:
            silent = sum(count_silent(reader.row(number).counts, shape) for number in range(reader.n_rows))
        if silent != (counted := sessions[name].histogram.silent):
            wrong.append(f"{name}: {silent:,} instead of {counted:,}")
    return Verdict(
        passed=not wrong,
        expected=f"the silent patches of {len(chosen):,} of {len(names):,} sessions, counted in another way",
        found=capped(wrong, 5) or "as many as in their histograms",
        remedy=_DEFECT,
    )


def motif_table_in_order(evidence: MadeEvidence) -> Verdict:
    """The table is sorted, has no motif twice, and its probabilities are frequencies over all patches."""
    record: TableRecord = evidence.record
    with open_verified(evidence.of.store, record.file) as file, damaged(record.file.key):
        table = open_parquet(file, record.file.key).read(use_threads=False).combine_chunks()
    frequency, probability = table["frequency"].to_numpy(), table["probability"].to_numpy()
    cells = np.asarray(pa.concat_arrays(table["patch"].chunks).flatten(), np.uint8) if len(table) else np.zeros(0)
    patches = np.ascontiguousarray(cells.reshape(len(table), -1)).view(f"S{MotifShape(*record.shape).cells}").ravel()
    equal = frequency[1:] == frequency[:-1]
    wrong = []
    if np.any(frequency[1:] > frequency[:-1]):
        wrong.append("a motif that is more frequent than the one before it")
    if np.any(patches[1:][equal] <= patches[:-1][equal]):
        wrong.append("equally frequent motifs out of order, or a motif twice")
    if not np.array_equal(probability, frequency / max(record.patches, 1)):
        wrong.append(f"probabilities that are not over {record.patches:,} patches")
    return Verdict(
        passed=not wrong,
        expected=f"{record.rows:,} motifs, most frequent first, then by bytes",
        found=capped(wrong) or "as expected",
        remedy=_DEFECT,
    )


def lossless_share_as_stated(evidence: MadeEvidence) -> Verdict:
    """The share of train's tokens that decode to what was encoded is that of the vocabulary in the motif table."""
    of = evidence.of
    stated = of.record(evidence.upstream("motif_vocabulary")).coverage
    made = of.records(evidence.upstream("tokens_"))
    train = [made[shard.name] for shard in of.plan.shards if shard.split == "train" and shard.name in made]
    tokens, exact = sum(shard.tokens for shard in train), sum(shard.exact_tokens for shard in train)
    found = exact / max(tokens, 1)
    return Verdict(
        passed=abs(found - stated) < 1e-9,
        expected=f"{stated:.9%} of the tokens of train",
        found=f"{found:.9%} ({exact:,} of {tokens:,})",
        remedy="this is a defect of tokenizing: report it with the plan's id",
    )


def tokens_decode_to_counts(evidence: MadeEvidence) -> Verdict:
    """Some rows of tokens, decoded, give the pile's counts but for patches that are not in the vocabulary."""
    from neuralpile_dagster.motifs.counts import take
    from neuralpile_dagster.motifs.tokens import Tokenizer
    from neuralpile_dagster.motifs.vocabulary import read_vocabulary

    of = evidence.of
    tokenizer = Tokenizer(read_vocabulary(of.store, of.record(evidence.upstream("motif_vocabulary"))))
    made = of.records(evidence.upstream("tokens_"))
    wrong, patches_read, same = [], 0, 0
    for name in _some_shards(of):
        counts, tokens, n_bins = _first_row(of, name, made[name].file)
        patches, grid = take(counts, tokenizer.shape), tokenizer.shape.grid(*counts.shape)
        if tokens.shape != grid or n_bins != counts.shape[1]:
            wrong.append(f"{name}: {tokens.shape} tokens of {n_bins:,} bins instead of {grid} of {counts.shape[1]:,}")
            continue
        if tokens.size and tokens.max() >= len(tokenizer.motifs):
            wrong.append(f"{name}: token {tokens.max()}, which is no motif")
            continue
        differ = np.any(tokenizer.motifs[tokens.reshape(-1)] != patches, axis=1)
        patches_read, same = patches_read + len(patches), same + int((~differ).sum())
        found = np.empty(int(differ.sum()), tokenizer.dtype)
        unknown = tokenizer.vocabulary.lookup.of_patches(patches[differ], found, tokenizer.sep_id)
        if unknown != len(found):
            wrong.append(f"{name}: {len(found) - unknown:,} patches of the vocabulary decode to another patch")
    return Verdict(
        passed=not wrong,
        expected="every patch of the vocabulary decodes to itself",
        found=capped(wrong, 3) or f"{same / max(patches_read, 1):.4%} of {patches_read:,} patches are what they were",
        remedy="materialize these partitions of the tokens again; report it when that does not help",
    )


def _some_shards(of: PlannedPile) -> list[str]:
    by_split: dict[str, list[str]] = {}
    for shard in of.plan.shards:
        by_split.setdefault(shard.split, []).append(shard.name)
    names = [name for shards in by_split.values() for name in dict.fromkeys((shards[0], shards[-1]))]
    return names[:ROWS_DECODED]


def _first_row(of: PlannedPile, shard: str, tokens_file: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Counts of a shard's first row, its tokens, and the bins that are stated with these."""
    key = of.shards[shard].file.key
    with of.store.open(key) as file, RowReader(file, key) as reader:
        counts = reader.row(0).counts
    with open_verified(of.store, tokens_file) as file, damaged(tokens_file.key):
        row = open_parquet(file, tokens_file.key).read_row_group(0, use_threads=False)
    by_unit = row["tokens"].combine_chunks().flatten()
    tokens = np.asarray(by_unit.flatten()).reshape(len(by_unit), -1)
    return counts, tokens, row["n_bins"][0].as_py()
