"""The card (README.md) of the merged pile; sections that components have too are in `card`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from neuralpile_dagster.catalog.describe import code
from neuralpile_dagster.markdown import table, text
from neuralpile_dagster.publish import card, card_parts
from neuralpile_dagster.publish.card import NOT_STATED, PROGRAM, TAGS
from neuralpile_dagster.publish.card_parts import Config, card_text, cite_lines, licenses_of_all
from neuralpile_dagster.publish.token_counts import statistics_lines
from neuralpile_dagster.records import ComponentCitation, ComponentRecord, PileRecord


@dataclass(frozen=True)
class PileComponent:
    """One component of a pile.

    Attributes
    ----------
    name : str
        Its ``source_dataset``.
    rows, sessions, tokens : int
        What the pile has of it.
    record : ComponentRecord or None
        None for a repository of another owner, of which only the rows are known.
    tables : callable
        Yields the tables of its ``units`` or ``sessions`` config, by the config's name; nothing if it is missing.
    citation : ComponentCitation
        How to cite it.
    token_counts : mapping of (subject_id, session_id) to sequence of int
        Values of the tokens of those sessions whose record describes the rows in the pile.
    splits_left_out : tuple of str
        Splits of its repository that are not merged.
    """

    name: str
    rows: int
    sessions: int
    tokens: int
    record: ComponentRecord | None
    tables: Callable[[str], Iterable[pa.Table]]
    citation: ComponentCitation
    token_counts: Mapping[tuple[str, str], Sequence[int]] = field(default_factory=dict)
    splits_left_out: tuple[str, ...] = ()


def pile_card(
    pile: PileRecord,
    components: Sequence[PileComponent],
    configs: Sequence[Config],
    promoted: Mapping[str, str],
    *,
    title: str,
    as_published: str,
) -> str:
    """Text of the pile's README.md; the same inputs give the same card.

    ``promoted`` sessions (rows, ...) fill a split, by name, that would be empty. ``as_published`` is what its datasets
    have in the published pile, in words.
    """
    records = [component.record for component in components if component.record is not None]
    default = next(config for config in configs if config.name == "default")
    tokens = sum(component.tokens for component in components)
    lines = [
        *[f"# {text(title)}", "", *_warnings(components)],
        f"{tokens:,} tokens of spike counts from {len(components):,} datasets, merged, shuffled and split for "
        "foundation models of neural activity: one row is a segment of a recording session, a matrix of units x bins"
        f"{_bin_width(records)}. A token is one unit in one bin. Made by {PROGRAM}.",
        *_as_published(components, as_published),
        *["", *card.picture(pile.repository)],
        *["## Components", "", *_components(components), ""],
        *["## Splits", "", *_splits(pile, promoted), ""],
        *_annotations(components),
        *statistics_lines(pile.token_counts),
        *["## Cite", "", *cite_lines(pile.citations), ""],
        *["## Use", "", *card_parts.loading(pile.repository, "train", any(c.name == "units" for c in configs)), ""],
        *["## Columns", "", *card_parts.columns(default.schema), "", "More configs of this repository:", ""],
        *card_parts.config_lines(sorted(config.name for config in configs)),
    ]
    return card_text(
        lines,
        configs,
        pretty_name=title,
        licenses=licenses_of_all(c.record.license if c.record else None for c in components),
        tags=TAGS,
        synthetic=any(record.synthetic for record in records),
        n_rows=sum(split.num_examples for split in default.splits.values()),
    )


def _as_published(components: Sequence[PileComponent], as_published: str) -> list[str]:
    """The pile's own totals against those of the published pile."""
    if not as_published:
        return []
    tokens, sessions = (sum(getattr(component, what) for component in components) for what in ("tokens", "sessions"))
    ours = f"{tokens:,} tokens, {sessions:,} sessions, {len(components):,} datasets"
    return ["", f"In this pile: {ours}. As published by the authors of the neural pile: {as_published}."]


def _warnings(components: Sequence[PileComponent]) -> list[str]:
    def named(some: Iterable[str]) -> str:
        return ", ".join(map(text, some))

    lines = []
    records = [(component.name, component.record) for component in components if component.record]
    if synthetic := [name for name, record in records if record.synthetic]:
        lines += card.warning(
            f"SYNTHETIC: made by a program to test this software, not neural data: {named(synthetic)}."
        )
    if drafts := [name for name, record in records if not record.frozen]:
        lines += card.warning(
            f"The sources of these components are not frozen (versions that can change): {named(drafts)}."
        )
    if partial := [f"{name} ({len(record.missing):,})" for name, record in records if record.missing]:
        lines += card.warning(f"Components with missing sessions, listed on their own cards: {named(partial)}.")
    if uneven := [f"{name} ({record.bins_in_words})" for name, record in records if record.other_bin_widths_s]:
        lines += card.warning(f"Components with sessions of different bin widths: {named(uneven)}.")
    if unknown := [component.name for component in components if component.record is None]:
        lines += card.warning(f"Repositories of other owners, merged as they are: {named(unknown)}.")
    if cut := [f"{c.name} ({', '.join(c.splits_left_out)})" for c in components if c.splits_left_out]:
        lines += card.warning(f"Splits of merged repositories whose rows were left out: {named(cut)}.")
    return lines


def _bin_width(records: Sequence[ComponentRecord]) -> str:
    widths = sorted({width for record in records for width in (record.bin_width_s, *record.other_bin_widths_s)})
    return f", in bins of {' and '.join(f'{width * 1000:g}' for width in widths)} ms" if widths else ""


def _components(components: Sequence[PileComponent]) -> list[str]:
    rows: list[list[str | int]] = []
    for component in components:
        record = component.record
        source = f"{text(record.source)}, version {text(record.source_version)}" if record else NOT_STATED
        stated = text(record.license) if record and record.license else NOT_STATED
        rows.append([text(component.name), source, stated, component.sessions, component.rows, component.tokens])
    sums = (sum(c.sessions for c in components), sum(c.rows for c in components), sum(c.tokens for c in components))
    header = ["source_dataset", "source", "license", "sessions", "rows", "tokens"]
    return table(header, [*rows, ["all", "", "", *sums]])


def _annotations(components: Sequence[PileComponent]) -> list[str]:
    """Section on how many sessions of each component have intervals and metrics of units."""
    rows: list[list[str | int]] = []
    for component in components:
        found = component.record.annotations if component.record else None
        numbers = (found.sessions, sum(found.tables.values()), len(found.metrics)) if found else (0, 0, 0)
        sessions = component.record.totals.sessions if component.record else component.sessions
        rows.append([text(component.name), f"{numbers[0]:,} of {sessions:,}", *numbers[1:]])
    lines = table(["source_dataset", "annotated sessions", "intervals", "metrics of units"], rows)
    if ordered := sum(c.record.unit_order.sessions for c in components if c.record and c.record.unit_order):
        sessions = sum(c.record.totals.sessions if c.record else c.sessions for c in components)
        lines += ["", card.unit_order_sentence(ordered, sessions)]
    note = "Numbers of the components; sessions that are held out of this pile are not in its tables."
    return ["## Annotations", "", *lines, "", f"What is not known of a session is null or missing. {note}", ""]


_HOW = {
    "rows": "by rows: segments of one session can be in both splits, so test scores are for sessions that the model "
    "has seen.",
    "sessions": "by sessions: all segments of a session are in the same split.",
    "subjects": "by subjects: all sessions of an animal are in the same split.",
    "datasets": "by datasets: all sessions of a dataset are in the same split.",
}


def _splits(pile: PileRecord, promoted: Mapping[str, str]) -> list[str]:
    rows: list[list[str | int]] = [
        [split, sum(s.rows for s in shards), sum(s.tokens for s in shards), len(shards), sum(s.bytes for s in shards)]
        for split, shards in pile.shards.items()
    ]
    sizes = f"test_size {pile.test_size:g}" + (
        f", valid_size {pile.rules.valid_size:g}" if pile.rules.valid_size else ""
    )
    how = _HOW[pile.split_by].replace("in both splits", "in several splits" if len(rows) > 2 else "in both splits")
    return [
        *table(["split", "rows", "tokens", "files", "bytes"], rows),
        "",
        *_what_splits_hold(pile),
        f"Split {how} {sizes}, seed {pile.seed}, plan {text(pile.plan[:8])}: the same components "
        "and seed give the same files, byte for byte.",
        *_rules(pile, promoted),
        *_benchmarks(pile),
    ]


def _what_splits_hold(pile: PileRecord) -> list[str]:
    if not pile.splits:
        return []
    rows: list[list[str | int]] = [
        [
            part.split,
            part.sessions,
            part.subjects,
            part.datasets,
            NOT_STATED if part.hours is None else f"{part.hours:,.1f}",
        ]
        for part in pile.splits
    ]
    return [*table(["split", "sessions", "subjects", "datasets", "recorded hours"], rows), ""]


def _rules(pile: PileRecord, promoted: Mapping[str, str]) -> list[str]:
    lines = []
    if pile.rules.split_rule == "hash":
        lines += [
            "",
            "The splits stay: each one's split depends on the hash of its own name (`u` in the `splits` config, see "
            "docs/merge.md of neuralpile-dagster), so that sessions that come or go move no other.",
        ]
    if pile.rules.order == "hash":
        lines += ["", "Rows lie in the order of a hash of their own names, so that an added session changes few files."]
    if pile.rules.hold_out:
        where = "are in test" if pile.rules.held_out_go_to == "test" else "are not in this pile"
        lines += ["", f"Held out, so that they {where}: {', '.join(map(code, pile.rules.hold_out))}."]
    if promoted:
        named = ", ".join(f"{code(name)} ({split})" for name, split in promoted.items())
        lines += ["", f"Moved to a split that would be empty without them: {named}."]
    return lines


def _benchmarks(pile: PileRecord) -> list[str]:
    """Where the sessions of public benchmarks are; nothing where the pile has none."""
    if not pile.benchmarks:
        return []
    splits = list(pile.shards)
    rows: list[list[str | int]] = [
        [code(name), counts["sessions"], *(counts[split] for split in splits)]
        for name, counts in pile.benchmarks.items()
    ]
    return [
        "",
        "Sessions of public benchmarks in this pile, and how many have rows in each split (`benchmarks` in the "
        "`splits` config names them):",
        "",
        *table(["benchmark", "sessions", *splits], rows),
    ]
