"""Checks of the merged pile. One function is one check, listed in `registry`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from neuralpile_dagster.catalog.benchmarks import Benchmark, load_benchmarks
from neuralpile_dagster.catalog.piles import PUBLISHED_BIN_WIDTH_S, PUBLISHED_TOKEN_SHARES, Pile
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.checks.model import Verdict, capped
from neuralpile_dagster.hub import Hub
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.splits import read_earlier_splits
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.merge.model import SPLITS, PilePlan, settings_of
from neuralpile_dagster.merge.plan import load_plan
from neuralpile_dagster.merge.split_table import splits_of_sessions
from neuralpile_dagster.publish.token_counts import counts_by_split
from neuralpile_dagster.records import PileRecord, ShardRecord, SplitRules
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store


@dataclass(frozen=True)
class PileEvidence:
    """What the checks of the published pile look at."""

    published: PileRecord
    plan: PilePlan
    hub: Hub
    repository_name: str
    folder: Path
    settings: Settings
    earlier: pa.Table | None = None  # the `splits` published before
    benchmarks: Mapping[str, Benchmark] = field(default_factory=dict)


def read_evidence(store: Store, pile: Pile, settings: Settings, hub: Hub) -> PileEvidence:
    """A pile as it is published now, and its plan."""
    published = piles.require_published(store, pile, settings)
    plan = load_plan(store, piles.plan_path(pile, settings, published.plan[:8]))
    name = piles.repository_name(pile, settings)
    return PileEvidence(
        published,
        plan,
        hub,
        name,
        documents.staging_folder(settings, name),
        settings,
        read_earlier_splits(store, pile, settings, plan.record.plan_id),
        load_benchmarks(settings),
    )


def shards_of(published: PileRecord) -> list[ShardRecord]:
    """The published shards of all splits."""
    return [shard for shards in published.shards.values() for shard in shards]


def tokens_equal_components(published: PileRecord, plan: PilePlan) -> Verdict:
    """The pile's tokens are the sum of its components', as they were when it was planned."""
    due = {source.name: source.totals.tokens for source in plan.record.sources}
    found = sum(shard.tokens for shard in shards_of(published))
    return Verdict(
        passed=sum(due.values()) == found,
        expected=sum(due.values()),
        found=found,
        remedy="materialize the pile's manifest, the shards that it names and its hub_dataset",
        details={"components": due},
    )


def every_row_exactly_once(plan: PilePlan) -> Verdict:
    """Every row of every component is in the plan once."""
    rows = plan.rows
    due = sum(source.totals.rows for source in plan.record.sources)
    distinct = rows.group_by(["file", "row"]).aggregate([]).num_rows
    return Verdict(
        passed=distinct == rows.num_rows == due,
        expected=f"{plural(due, 'row')}, each once",
        found=f"{plural(rows.num_rows, 'row')}, {distinct:,} of them different",
        remedy="this is a defect of the merge: report it with the plan's id",
    )


_SESSION = ["source_dataset", "subject_id", "session_id"]
_COLUMNS = {
    "rows": ["file", "row"],
    "sessions": _SESSION,
    "subjects": ["source_dataset", "subject_id"],
    "datasets": ["source_dataset"],
}
"""What is in one split only, by ``split_by``."""


def train_and_test_disjoint(plan: PilePlan) -> Verdict:
    """No row (session, subject, dataset, as ``split_by`` says) is in two splits; of the hash rule no twin either."""
    import pyarrow.compute as pc

    split_by = plan.record.split_by
    parts: dict[str, set[tuple[Any, ...]]] = {}
    for split in SPLITS:
        rows = plan.rows.filter(pc.equal(plan.rows["split"], split))
        parts[split] = set(zip(*(rows[name].to_pylist() for name in _COLUMNS[split_by]), strict=True))
    both = sorted({str(item) for one, other in combinations(parts.values(), 2) for item in one & other})
    if plan.splits is not None and plan.record.rules.split_rule == "hash" and split_by != "rows":
        both += _apart(plan.splits, split_by)
    return Verdict(
        passed=not both,
        expected=f"no {split_by.removesuffix('s')} in two splits",
        found=capped(both, 5) or "none in two",
        remedy="this is a defect of the merge: report it with the plan's id. Twins that were published apart before "
        "their spikes were equal stay there: hold one of them out, or choose another seed",
    )


def _apart(splits: pa.Table, split_by: str) -> list[str]:
    """Twins, and animals with several folders, that are in several splits."""
    found: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for row in splits.to_pylist():
        name = f"{row['source_dataset']}/{row['session_id']}"
        found["twins", row["twin_of"] or name].setdefault(row["split"], name)
        if split_by == "subjects":
            found["animal", row["source_dataset"], row["subject"]].setdefault(row["split"], name)
    return [f"{' '.join(key)}: {', '.join(of.values())}" for key, of in sorted(found.items()) if len(of) > 1]


def split_sizes(plan: PilePlan) -> Verdict:
    """Every split holds the share that was asked for; by hash, what the published hashes say."""
    if plan.record.rules.split_rule == "hash":
        return _follows_hashes(plan)
    record = plan.record
    what = "sessions" if record.split_by == "sessions" else "rows"
    held_out = getattr(record.held_out, what) if record.held_out and record.rules.held_out_go_to == "test" else 0
    total = getattr(record.totals, what) - held_out
    found = {split: getattr(part, what) for split, part in record.splits.items()}
    found["test"] -= held_out
    due = {"test": math.ceil(record.test_size * total)}
    if record.rules.valid_size:
        due["valid"] = math.ceil(record.rules.valid_size * total)
    return Verdict(
        passed=all(found.get(split) == n for split, n in due.items()),
        expected=", ".join(f"{n} of {total} {what} in {split}" for split, n in due.items()),
        found=", ".join(f"{found.get(split, 0)} of {total} {what} in {split}" for split in due),
        details={f"{split}_rows": part.rows for split, part in record.splits.items()},
    )


def _follows_hashes(plan: PilePlan) -> Verdict:
    """No split that was asked for is empty, and every session is where its hash says, but for those that are named."""
    record = plan.record
    wanted = ["train", "test", *(["valid"] if record.rules.valid_size else [])]
    sizes = {"test": record.test_size, "valid": record.test_size + record.rules.valid_size}
    wrong = [f"no rows in {split}" for split in wanted if split not in record.splits]
    # a source_dataset is its catalog's name, and how it was binned
    promoted = {name.split("/", 1)[-1] for name in record.promoted}
    for row in plan.splits.to_pylist() if plan.splits is not None and record.split_by != "rows" else ():
        due = next((split for split, size in sizes.items() if row["u"] < size), "train")
        names = {"sessions": row["session_id"], "subjects": row["subject"], "datasets": row["source_dataset"]}
        name = names[record.split_by]
        is_named = any(name == other or name.startswith(f"{other}-") for other in promoted)
        is_held_out = bool(record.rules.hold_out) and row["split"] in ("test", "left_out")
        if row["split"] != due and not is_held_out and not is_named:
            wrong.append(f"{row['source_dataset']}/{row['session_id']} in {row['split']} instead of {due}")
    return Verdict(
        passed=not wrong,
        expected=f"{' and '.join(f'{split} below {size:g}' for split, size in sizes.items() if split in wanted)}",
        found=capped(wrong, 5) or "every session where its hash says, or held out, or promoted to an empty split",
        remedy="this is a defect of the merge: report it with the plan's id",
        details={f"{split}_rows": part.rows for split, part in record.splits.items()} | {"promoted": record.promoted},
    )


def split_is_stable(plan: PilePlan, earlier: pa.Table | None) -> Verdict:
    """No session that is in this pile and in the one published before has changed its split.

    Compared are plans of the same seed and rule. A permutation draws all splits again with every added session, so
    that it is only warned of.
    """
    expected = "every session in the split in which it was published before"
    record, before = plan.record, settings_of(earlier) if earlier is not None else None
    if earlier is None or before is None:
        return Verdict(True, expected, "not compared: no pile with a splits table was published before this one")
    same = (record.seed, record.split_by, record.test_size, *_compared(record.rules))
    if (before.seed, before.split_by, before.test_size, *_compared(before.rules)) != same:
        return Verdict(True, expected, "not compared: another seed, rule, size or list of what is held out")
    if record.split_by == "rows":
        return Verdict(True, expected, "not compared: split by rows, a session can be in several splits")
    now = splits_of_sessions(plan)
    then = zip(*(earlier[name].to_pylist() for name in _SESSION), earlier["split"].to_pylist(), strict=True)
    moved = [
        f"{dataset}/{session} from {split} to {now[dataset, subject, session]}"
        for dataset, subject, session, split in then
        if now.get((dataset, subject, session), split) != split
    ]
    by_hash = record.rules.split_rule == "hash"
    return Verdict(
        passed=not moved,
        expected=expected,
        found=f"{plural(len(moved), 'session')} moved: {capped(moved, 5)}" if moved else "no session moved",
        remedy="hold out one of two twins that were published apart before they were equal, or choose another seed; "
        "else report it with the plan's id"
        if by_hash
        else "a model trained on the train split of before must not be tested on this test split: set split_rule: hash",
        details={"compared_with": before.plan[:8], "moved": len(moved)},
        severity=None if by_hash else "warn",
    )


def _compared(rules: SplitRules) -> tuple[Any, ...]:
    return (rules.split_rule, rules.valid_size, sorted(rules.hold_out), rules.held_out_go_to)


def benchmarks_in_train(published: PileRecord, benchmarks: Mapping[str, Benchmark]) -> Verdict:
    """No session of a public evaluation list has rows in train; lists for pretraining are only counted."""
    expected = "no session of a public evaluation list in train"
    if not published.splits:
        return Verdict(True, expected, "not compared: published by a version that did not look for them")
    lists = published.benchmarks
    listed = {
        name: f"{counts['train']:,} of {counts['sessions']:,} sessions in train" for name, counts in lists.items()
    }
    wrong = [
        f"{name}: {listed[name]}"
        for name, counts in lists.items()
        if counts["train"] and (name not in benchmarks or benchmarks[name].kind == "eval")
    ]
    return Verdict(
        passed=not wrong,
        expected=expected,
        found=capped(wrong) or ("no session of a list in train" if lists else "no session of a list in this pile"),
        remedy="hold_out: [benchmark:<name>] in the launchpad of neural_pile/manifest, or neuralpile build ... --merge "
        "--hold-out benchmark:<name>",
        details={"lists": listed},
    )


def shuffled(plan: PilePlan) -> Verdict:
    """Runs test on ``source_dataset`` in train: components are mixed as a random order would mix them.

    The number of runs of equal neighbours has, in a random order of ``n`` rows
    with ``n_i`` of component i, mean ``n + 1 - S2/n`` and variance
    ``(S2 (S2 + n (n + 1)) - 2 n S3 - n^3) / (n^2 (n - 1))`` with ``Sk = sum n_i^k``
    (Barton and David 1957; Wald and Wolfowitz 1940 for two kinds).
    """
    import pyarrow.compute as pc

    train = plan.rows.filter(pc.equal(plan.rows["split"], "train"))
    names = np.asarray(train["source_dataset"].combine_chunks().indices, dtype=np.int64)
    n = len(names)
    sizes = np.bincount(names).astype(float)
    s2, s3 = float((sizes**2).sum()), float((sizes**3).sum())
    mean = n + 1 - s2 / n
    variance = (s2 * (s2 + n * (n + 1)) - 2 * n * s3 - n**3) / (n**2 * (n - 1)) if n > 1 else 0.0
    runs = 1 + int(np.count_nonzero(np.diff(names)))
    z = (runs - mean) / math.sqrt(variance) if variance > 0 else 0.0
    return Verdict(
        passed=abs(z) < 5,
        expected=f"{mean:.1f} runs (within 5 standard deviations of {math.sqrt(max(variance, 0)):.1f})",
        found=f"{plural(runs, 'run')} (z = {z:.2f})",
        remedy="materialize the pile's manifest with another seed; report it when it stays",
        details={"z": round(z, 3)},
    )


MAX_SHARE_DIFFERENCE = 1e-4
"""Between a share of the pile's train tokens and that of the published pile's."""


def counts_as_published(published: PileRecord, settings: Settings) -> Verdict:
    """The rodent pile's train tokens have the values 0 to 4 as often as those of the published pile.

    Compared are the 25 datasets of the published pile alone, where all of them are in this one, in bins of 20 ms.
    """
    names = {documents.repository_name(dataset, settings) for dataset in RODENT}
    parts = [part for part in published.token_counts if part.split == "train" and part.source_dataset in names]
    missing = sorted(names - {part.source_dataset for part in parts})
    shares = ", ".join(f"{value}: {share:.9g}" for value, share in enumerate(PUBLISHED_TOKEN_SHARES))
    expected = f"{shares} (each within {MAX_SHARE_DIFFERENCE:g})"
    if settings.bin_width_s != PUBLISHED_BIN_WIDTH_S:
        return Verdict(True, expected, f"not compared: bins of {settings.bin_width_s * 1000:g} ms instead of 20 ms")
    if not published.token_counts:
        return Verdict(True, expected, "not compared: published by a version that did not count the values of tokens")
    if missing:
        found = f"not compared: {len(missing)} of the {len(names)} published datasets missing ({capped(missing, 5)})"
        return Verdict(True, expected, found)
    counts = counts_by_split(parts)["train"]
    found_shares = [float(count / counts.sum()) for count in counts[: len(PUBLISHED_TOKEN_SHARES)]]
    differences = [found - due for found, due in zip(found_shares, PUBLISHED_TOKEN_SHARES, strict=True)]
    return Verdict(
        passed=all(abs(difference) <= MAX_SHARE_DIFFERENCE for difference in differences),
        expected=expected,
        found=", ".join(f"{value}: {share:.9g}" for value, share in enumerate(found_shares)),
        remedy="compare sessions and tokens of each dataset with the published ones (neuralpile status), then their "
        "values in the token_counts config; report it when sessions and tokens agree",
        details={"differences": differences, "train_tokens": int(counts.sum())},
    )
