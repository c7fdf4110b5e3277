"""The card (README.md) of a component: what it is, where it comes from, what it lacks, how to use it.

Every number comes from the records of the published sessions and from the
files beside the card. Nothing depends on the time or the machine: the same
inputs give the same card. Parts of other cards are in `card_parts`, the pile's card in `pile_card`.
"""

from __future__ import annotations

from collections.abc import Sequence

from neuralpile_dagster.catalog.describe import bibtex, code, other_species, paper_link, recorded
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.markdown import code_block, doi_link, link, public, table, text
from neuralpile_dagster.publish import card_parts
from neuralpile_dagster.publish.card_parts import Config, card_text, hub_licenses
from neuralpile_dagster.publish.samples import CARD_PICTURE, CARD_SAMPLES
from neuralpile_dagster.publish.token_counts import component_token_counts, statistics_lines
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.records import Citation, ComponentRecord, CountsRecord

NOT_STATED = "not stated by the source"
PROGRAM = "neuralpile-dagster"
TAGS = ("neuroscience", "electrophysiology", "spike-counts", "neural-population-activity")


def component_card(
    dataset: Dataset,
    manifest: Manifest,
    component: ComponentRecord,
    counts: Sequence[CountsRecord],
    configs: Sequence[Config],
) -> str:
    """Text of a component's README.md.

    Parameters
    ----------
    dataset : Dataset
    manifest : Manifest
    component : ComponentRecord
        What is published.
    counts : sequence of CountsRecord
        Of the published sessions.
    configs : sequence of Config
        As written, ``default`` among them.
    """
    species = _species(dataset, counts)
    default = next(config for config in configs if config.name == "default")
    lines = [
        *[f"# {text(dataset.title)}", ""],
        *warnings_section(manifest, component),
        *_species_warning(dataset, counts),
        *_bin_width_warning(component, counts),
        *_summary(dataset, component, species),
        *["", *_numbers(component), ""],
        *picture(component.repository),
        *["## Source", "", *source_section(dataset, manifest, counts), ""],
        *["## Use", "", *card_parts.loading(component.repository, "train", units=True), ""],
        *["## Columns", "", *card_parts.columns(default.schema), "", "More configs of this repository:", ""],
        *[*card_parts.config_lines(sorted(config.name for config in configs)), ""],
        *["## Binning", "", *_binning(component, counts), ""],
        *_spike_times(component),
        *_annotations(dataset, component),
        *_unit_order(component),
        *verification_section(counts),
        *statistics_lines([component_token_counts(component.repository, component.sessions, component.totals)]),
        *missing_section(component),
    ]
    return card_text(
        lines,
        configs,
        pretty_name=dataset.title,
        licenses=hub_licenses(manifest.citation.license),
        tags=TAGS,
        synthetic=component.synthetic,
        n_rows=component.totals.rows,
    )


def warnings_section(manifest: Manifest, component: ComponentRecord) -> list[str]:
    """Warnings about the source and about what is missing."""
    lines = []
    if component.synthetic:
        lines += warning(
            "SYNTHETIC: these recordings were made by a program, to test this software. They are not neural data."
        )
    if not component.frozen:
        lines += warning(
            f"The source is not frozen: it was read from a version that can change ({text(manifest.version)}). "
            "The sessions config lists the digests of the files that were read."
        )
    if manifest.version_note:
        lines += warning(text(manifest.version_note))
    published = {session.key for session in component.sessions}
    vanished = sum(session.vanished and session.key in published for session in manifest.sessions)
    if vanished:
        lines += warning(f"The source no longer lists {vanished:,} of these sessions.")
    if component.missing:
        total = len(component.missing) + component.totals.sessions
        lines += warning(f"Sessions missing: {len(component.missing):,} of {total:,}. They are listed below.")
    return lines


def _species_warning(dataset: Dataset, counts: Sequence[CountsRecord]) -> list[str]:
    found = {record.facts.species for record in counts if record.facts.species}
    others = other_species(dataset.species, found) if dataset.species else []
    if not others:
        return []
    sessions = sum(record.facts.species in others for record in counts)
    return warning(
        f"The files of {sessions:,} of {len(counts):,} sessions state another species than the catalog: "
        f"{text(', '.join(others))} in the files, {text(dataset.species or '')} in the catalog. "
        "The sessions config has the species of each session."
    )


def _bin_width_warning(component: ComponentRecord, counts: Sequence[CountsRecord]) -> list[str]:
    if not component.other_bin_widths_s:
        return []
    others = sum(record.stats.bin_width_s != component.bin_width_s for record in counts)
    return warning(
        f"{others:,} of {len(counts):,} sessions are in bins of "
        f"{' and '.join(f'{width * 1000:g}' for width in component.other_bin_widths_s)} ms, as their files hold them, "
        f"not of {component.bin_width_s * 1000:g} ms. The sessions config has the bin width of each session."
    )


def _species(dataset: Dataset, counts: Sequence[CountsRecord]) -> str:
    """Species that the card may state: the catalog's, unless a file states another one; then what the files state."""
    found = sorted({record.facts.species for record in counts if record.facts.species})
    if dataset.species and not other_species(dataset.species, found):
        return dataset.species
    return ", ".join(found) or NOT_STATED


def _summary(dataset: Dataset, component: ComponentRecord, species: str) -> list[str]:
    about = [text(dataset.description, 2_000), ""] if dataset.description else []
    return [
        *about,
        f"Spike counts of sorted units ({text(species)}) in bins of {component.bins_in_words}, for "
        f"foundation models of neural activity: one row is a segment of a session, a matrix of units x bins. "
        f"Made from {text(component.source)} by {PROGRAM}.",
    ]


def _numbers(component: ComponentRecord) -> list[str]:
    totals = component.totals
    rows = [
        ("tokens (one unit in one bin)", f"{totals.tokens:,}"),
        ("sessions", f"{totals.sessions:,}"),
        ("subjects", f"{totals.subjects:,}"),
        ("units", f"{totals.units:,}"),
        ("spikes", f"{totals.spikes:,}"),
        ("recorded minutes", f"{totals.minutes:,.1f}"),
        ("rows (segments)", f"{totals.rows:,}"),
        ("bin width", " and ".join(f"{width:g} s" for width in (component.bin_width_s, *component.other_bin_widths_s))),
    ]
    return table(["", ""], rows)


def source_section(dataset: Dataset, manifest: Manifest, counts: Sequence[CountsRecord]) -> list[str]:
    """Section on the source: archive, version, license, authors, and how to cite it."""
    citation = manifest.citation
    address = citation.url or dataset.source.url
    versions = sorted({record.source_version for record in counts})
    rows = [
        ("archive", link(dataset.source.label, address)),
        ("title", text(citation.title) if citation.title else NOT_STATED),
        ("version", ", ".join(map(text, versions))),
        ("DOI", doi_link(citation.doi or dataset.doi) or NOT_STATED),
        *([("paper", paper)] if (paper := paper_link(dataset)) else []),
        *((f"recorded {what}", text(words, 2_000)) for what, words in recorded(dataset).items()),
        ("license", text(citation.license) if citation.license else NOT_STATED),
        ("authors", "; ".join(map(text, citation.authors)) or NOT_STATED),
    ]
    return [*table(["", ""], rows), *_citation(dataset, citation, ", ".join(versions))]


def _citation(dataset: Dataset, citation: Citation, version: str) -> list[str]:
    quoted = ["", f"> {text(citation.citation, 2_000)}"] if citation.citation else []
    entry = bibtex(dataset, citation, version)
    block = ["", *code_block(entry, "bibtex")] if entry else []
    return ["", "If you use these data, please cite the source:", *quoted, *block] if quoted or block else []


def _binning(component: ComponentRecord, counts: Sequence[CountsRecord]) -> list[str]:
    stats = [record.stats for record in counts]
    spikes_read = sum(s.spikes_read for s in stats)
    dropped = sum(s.dropped for s in stats)
    reasons = [
        ("time before 0 of the session's clock: no bin begins there", [s.dropped_negative for s in stats]),
        ("time is NaN", [s.dropped_nan for s in stats]),
        ("time after the last bin edge, by rounding", [s.dropped_beyond for s in stats]),
        ("above the maximum count of 255 in one bin", [s.lost_to_saturation for s in stats]),
    ]
    rows = [
        (why, f"{sum(numbers):,}", f"{sum(numbers) / max(spikes_read, 1):.2%}", f"{sum(map(bool, numbers)):,}")
        for why, numbers in reasons
        if any(numbers)
    ]
    silent = sum(s.silent_units for s in stats)
    return [
        f"Of {spikes_read:,} spikes read, {component.totals.spikes:,} are in the counts; {dropped:,} were dropped "
        f"for their times ({dropped / max(spikes_read, 1):.2%}).",
        *(["", *table(["not in the counts", "spikes", "share", "sessions"], rows), ""] if rows else []),
        *_most_dropped(counts),
        f"The largest count is {max(s.max_count for s in stats)}; {sum(s.saturated_bins for s in stats):,} bins are "
        "saturated.",
        f"{silent:,} of {component.totals.units:,} units have no spikes; their rows are zeros.",
        f"{sum(s.missing_bins for s in stats):,} bins were missing in the source and are 0.",
        *_observation(counts),
    ]


def _spike_times(component: ComponentRecord) -> list[str]:
    """Section that names the repository of spike times, where there is one."""
    spikes = component.spikes
    if spikes is None:
        return []
    return [
        "## Spike times",
        "",
        f"The spike times that these counts were made from are in {link(spikes.repository, spikes.url)}: "
        f"{spikes.spikes:,} spikes of {spikes.sessions:,} of {component.totals.sessions:,} sessions "
        f"({spikes.bytes:,} bytes), to the last bit as the source has them, e.g. for bins of another width.",
        "",
    ]


def _most_dropped(counts: Sequence[CountsRecord]) -> list[str]:
    """Sessions that lost more than `DROPPED_NAMED` of their spikes, the worst first."""
    shares = {record.session_id: record.stats.dropped / max(record.stats.spikes_read, 1) for record in counts}
    worst = sorted((item for item in shares.items() if item[1] > DROPPED_NAMED), key=lambda item: (-item[1], item[0]))
    if not worst:
        return []
    named = ", ".join(f"{text(session)} ({share:.1%})" for session, share in worst[:_SESSIONS_NAMED])
    more = f" and {len(worst) - _SESSIONS_NAMED:,} more" if len(worst) > _SESSIONS_NAMED else ""
    return [f"Sessions that lost more than {DROPPED_NAMED:.0%} of their spikes: {named}{more}."]


def _observation(counts: Sequence[CountsRecord]) -> list[str]:
    """How much of the binned time was observed, of the sessions whose files say so."""
    stated = [s for s in (record.stats for record in counts) if s.clock is not None and s.clock.intervals_stated]
    if not stated:
        return []
    length, observed = sum(s.duration_s for s in stated), sum(s.observed_s for s in stated)
    return [
        f"The files of {len(stated):,} of {len(counts):,} sessions state when units were observed (`obs_intervals` of "
        f"the `units` config): {max(1 - observed / length, 0):.1%} of their bins lie outside: the zeros there are "
        "not measurements.",
    ]


def verification_section(counts: Sequence[CountsRecord]) -> list[str]:
    """Section on sessions whose values nothing verified."""
    unverified = sum(record.unverified for record in counts)
    if not unverified:
        return []
    return [
        "## Verification",
        "",
        f"{unverified:,} of {len(counts):,} sessions were read by byte ranges (`access: ranges`), at least in part "
        "from data that the source stores without checksums (contiguous HDF5 data). Only the bytes needed were "
        "transferred, so the digests that the source lists could not be compared: a bit flipped in the transfer "
        "would not be seen. To verify them, materialize `spike_trains` and `spike_counts` again with "
        "`access: download`: whole files are fetched and their digests compared.",
        "",
    ]


def _annotations(dataset: Dataset, component: ComponentRecord) -> list[str]:
    """Section on intervals and metrics of units: which sessions have them, and which do not."""
    found, sessions = component.annotations, component.totals.sessions
    if found is None:
        return ["## Annotations", "", f"0 of {sessions:,} sessions are annotated: {_NOT_ANNOTATED}.", ""]
    without = f" Of the others {_NOT_ANNOTATED}." if found.sessions < sessions else ""
    rows = [(text(name), f"{number:,}") for name, number in found.tables.items()]
    named = ", ".join(map(text, found.metrics)) or "none"
    rules = [(text(name), code(rule)) for name, rule in dataset.good_units.items()]
    return [
        "## Annotations",
        "",
        f"{found.sessions:,} of {sessions:,} sessions are annotated: {found.with_intervals:,} have intervals, "
        f"{found.with_metrics:,} have metrics of units.{without}",
        *(["", *table(["table of intervals", "rows"], rows)] if rows else []),
        *["", f"Metrics of units: {named}."],
        *(["", *table(["good", "units for which"], rules), "", _MASK] if rules else []),
        "",
    ]


def _unit_order(component: ComponentRecord) -> list[str]:
    """Section on the order of units, where any session has one."""
    if component.unit_order is None:
        return []
    return ["## Unit order", "", unit_order_sentence(component.unit_order.sessions, component.totals.sessions), ""]


def unit_order_sentence(ordered: int, sessions: int) -> str:
    """What the column ``order`` of the units is, how many sessions have it, and how to use it."""
    return (
        f"In {ordered:,} of {sessions:,} sessions the column `order` of `units` is the place of each unit in an order "
        "in which units that fire together lie side by side: cosine distances of their counts in the whole session, "
        "Ward clustering, optimal leaf order; units without spikes have a distance of 2 to all others. Rows of spike "
        "counts keep the order of `row`; `counts[np.argsort(order)]` puts them into this one."
    )


_NOT_ANNOTATED = "trials, stimuli, metrics and positions of units were not read"
_MASK = "The column `good` of `units` names the rules that hold for a unit; no unit is left out for them."


def missing_section(component: ComponentRecord) -> list[str]:
    """Section on sessions that are missing, with reasons; nothing where none is. Long lists end with a count."""
    if not component.missing:
        return []
    named = list(component.missing.items())[:_MISSING_NAMED]
    lines = table(["session", "reason"], [(text(key), text(public(reason), 300)) for key, reason in named])
    more = len(component.missing) - len(named)
    return ["## Missing sessions", "", *lines, *(["", f"and {more:,} more."] if more else [])]


_MISSING_NAMED = 50
_SESSIONS_NAMED = 5
DROPPED_NAMED = 0.01
"""Share of dropped spikes above which the card names the session; the check `spikes_are_in_bins` warns of it."""


def picture(repository: str) -> list[str]:
    """Section with the picture of random rows."""
    return [
        f"![Random rows as rasters]({CARD_PICTURE})",
        "",
        "Random rows, units by brain area where it is known and by rate; darker means more spikes. Above each: the "
        "session or segment with the shown window marked, and the mean rate of its units. The same picture: "
        f"`neuralpile raster {repository} -n {CARD_SAMPLES} -o {CARD_PICTURE}`.",
        "",
    ]


def warning(words: str) -> list[str]:
    """Warning paragraph; ``words`` are Markdown."""
    return [f"> **{words}**", ""]
