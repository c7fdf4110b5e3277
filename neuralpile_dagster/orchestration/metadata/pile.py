"""Dagster metadata of a pile's records: plan, shards, publication, and what is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from neuralpile_dagster.hub import Publication
from neuralpile_dagster.ledger.pile_analyses import MadeRecord, PileAnalysis, PlannedPile
from neuralpile_dagster.markdown import plural, text
from neuralpile_dagster.merge.model import PilePlan, PlannedSource, PlanRecord
from neuralpile_dagster.merge.shards import PileShard
from neuralpile_dagster.orchestration.metadata import (
    annotation_metadata,
    column_schema,
    counted,
    few_plots,
    place,
    publication_metadata,
    summary,
    table,
    token_metadata,
)
from neuralpile_dagster.records import ComponentRecord, PileRecord, SplitFacts, SplitRules
from neuralpile_dagster.tables.schemas import PILE_SCHEMA


def plan_metadata(
    plan: PlanRecord, left_out: Mapping[str, str], synthetic: bool, published: Mapping[str, ComponentRecord]
) -> dict[str, Any]:
    """Metadata of a plan: totals, splits, components (the largest first).

    ``published`` are our publications by the repository's name.
    """
    sizes = "; ".join(
        f"{split}: {plural(part.rows, 'row')}, {plural(part.tokens, 'token')}" for split, part in plan.splits.items()
    )
    by_hash = " (hash of each)" if plan.rules.split_rule == "hash" else ""
    words = (
        f"**{plural(plan.totals.tokens, 'token')}** in {plural(plan.totals.rows, 'row')} of "
        f"{plural(plan.totals.sessions, 'session')} from {plural(len(plan.sources), 'component')}. "
        f"{sizes}. Split by {plan.split_by}{by_hash}, seed {plan.seed}."
    )
    return few_plots(
        {
            "summary": summary(words, synthetic),
            "tokens": plan.totals.tokens,
            "sessions": plan.totals.sessions,
            "rows": plan.totals.rows,
            **_component_facts(plan, published),
            "bytes": plan.totals.bytes,
            **{f"{split}_rows": part.rows for split, part in plan.splits.items()},
            **{f"{split}_tokens": part.tokens for split, part in plan.splits.items()},
            "shards": len(plan.shards),
            "plan_id": plan.plan_id,
            "seed": plan.seed,
            "split_by": plan.split_by,
            "test_size": plan.test_size,
            **_rules(plan),
            "test_shares": dg.MetadataValue.json({source.name: _test_share(source) for source in plan.sources}),
            "left_out": dg.MetadataValue.md(counted(left_out)),
            "components": table(
                [
                    {
                        "component": source.name,
                        "tokens": f"{source.totals.tokens:,}",
                        "share (%)": f"{100 * source.totals.tokens / max(plan.totals.tokens, 1):.2f}",
                        "sessions": source.totals.sessions,
                        "rows": source.totals.rows,
                    }
                    for source in sorted(plan.sources, key=lambda source: -source.totals.tokens)
                ]
            ),
        }
    )


def _test_share(source: PlannedSource) -> float:
    """Share of a component's tokens that is test: of a small one it may be none."""
    test = source.splits.get("test")
    return round(test.tokens / max(source.totals.tokens, 1), 6) if test else 0.0


def _rules(plan: PlanRecord) -> dict[str, Any]:
    """How a plan is split otherwise than the published pile."""
    if plan.rules == SplitRules():
        return {}
    rules = plan.rules.model_dump(mode="json")
    facts = {**rules, "hold_out": ", ".join(plan.rules.hold_out) or "nothing"}
    if plan.rules.split_rule == "hash":
        facts["follows"] = plan.follows or "no published splits of the same seed and rule"
    if plan.promoted:
        facts["promoted"] = "; ".join(f"{name} to {split}, which was empty" for name, split in plan.promoted.items())
    if plan.held_out:
        facts |= {"held_out_sessions": plan.held_out.sessions, "held_out_tokens": plan.held_out.tokens}
    return facts


def split_metadata(parts: Sequence[SplitFacts], benchmarks: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Metadata on what each split holds, and on the sessions of public benchmarks: tables of few columns."""
    facts = {
        "rows": [f"{part.rows:,}" for part in parts],
        "sessions": [f"{part.sessions:,}" for part in parts],
        "subjects": [f"{part.subjects:,}" for part in parts],
        "datasets": [f"{part.datasets:,}" for part in parts],
        "tokens": [f"{part.tokens:,}" for part in parts],
        "hours": ["unknown" if part.hours is None else f"{part.hours:,.1f}" for part in parts],
    }
    names = [part.split for part in parts]
    rows = [{"of each split": name, **dict(zip(names, values, strict=True))} for name, values in facts.items()]
    listed = [
        {"benchmark": name, "sessions": counts["sessions"], "in train": counts["train"], "in test": counts["test"]}
        for name, counts in benchmarks.items()
    ]
    return {"splits": table(rows), **({"benchmarks": table(listed)} if listed else {})}


def _component_facts(plan: PlanRecord, published: Mapping[str, ComponentRecord]) -> dict[str, Any]:
    """Facts of the plan's components that are in our publications but not in the rows."""
    known = {
        source.name: record
        for source in plan.sources
        # a component published again since, or another owner's repository of the same name, does not match
        if (record := published.get(source.name)) and record.totals.tokens == source.totals.tokens
    }
    facts: dict[str, Any] = {
        "units": sum(record.totals.units for record in known.values()),
        "bins": sum(row.n_bins for record in known.values() for session in record.sessions for row in session.rows),
        "spikes": sum(record.totals.spikes for record in known.values()),
        "source_versions": {name: record.source_version for name, record in known.items()},
    }
    unknown = [source.name for source in plan.sources if source.name not in known]
    if unknown:
        facts["without_units_bins_and_spikes_of"] = ", ".join(unknown)
    return facts


def shard_metadata(plan: PilePlan, shard: PileShard, uri: str, seconds: float) -> dict[str, Any]:
    """Metadata of a shard, including the number of rows that had to be decoded."""
    rows = plan.shard_rows(shard.name)
    of_components = rows["source_dataset"].combine_chunks().value_counts().to_pylist()
    return few_plots(
        {
            "tokens": shard.tokens,
            "sessions": rows.group_by(["source_dataset", "subject_id", "session_id"]).aggregate([]).num_rows,
            "rows_of_components": {str(count["values"]): count["counts"] for count in of_components},
            "bytes": shard.file.size,
            "sha256": shard.file.sha256,
            "split": shard.split,
            "seconds": round(seconds, 3),
            "rows_decoded": dict(shard.decoded),
            "plan_id": plan.record.plan_id,
            "source_version": plan.record.digest,
            "dagster/partition_row_count": shard.rows,
            "dagster/uri": uri,
            "dagster/column_schema": column_schema(PILE_SCHEMA),
        }
    )


def analysis_metadata(
    row: PileAnalysis, of: PlannedPile, record: MadeRecord, uri: str | None, seconds: float, reused: bool
) -> dict[str, Any]:
    """Metadata of a partition of something made of a pile: pictures, then numbers, then tables."""
    numbers = row.numbers(record)
    first, *more = [
        f"{value:,} {name.replace('_', ' ')}" if isinstance(value, int | float) else text(value)
        for name, value in numbers.items()
    ][:3]
    words = ", ".join([f"**{first}**", *more])
    return few_plots(
        {
            "summary": summary(f"{words}.", of.current.synthetic),
            **{name: dg.MetadataValue.md(markdown) for name, markdown in row.pictures(of, record).items()},
            **{name: place(str(value)) if name == "published_at" else value for name, value in numbers.items()},
            **{name: table(rows) for name, rows in row.tables(record).items()},
            **({"bytes": sum(file.size for file in record.files)} if record.files else {}),
            "plan_id": of.plan.plan_id,
            "seconds": round(seconds, 3),
            "reused": reused,
            **({"dagster/uri": uri} if uri else {}),
        }
    )


def pile_metadata(
    plan: PlanRecord,
    left_out: Mapping[str, str],
    published: Mapping[str, ComponentRecord],
    publication: Publication,
    record: PileRecord,
    seconds: float,
    synthetic: bool,
    pictures: Mapping[str, Any],
) -> dict[str, Any]:
    """Metadata of the published pile."""
    planned = plan_metadata(plan, left_out, synthetic, published)
    return few_plots(
        {
            "summary": planned.pop("summary"),
            **pictures,
            **planned,
            **annotation_metadata([published[source.name] for source in plan.sources if source.name in published]),
            **split_metadata(record.splits, record.benchmarks),
            **token_metadata(record.token_counts, publication),
            "dagster/row_count": plan.totals.rows,
            "dagster/column_schema": column_schema(PILE_SCHEMA),
            **publication_metadata(publication, seconds),
        }
    )
