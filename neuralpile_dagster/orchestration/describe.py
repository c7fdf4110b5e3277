"""What the UI says about an asset: group, kinds, tags, owners, description. Derived from the catalog row."""

from __future__ import annotations

import re
from typing import Any, Literal

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.ledger.documents import PILE
from neuralpile_dagster.markdown import doi_link, link, one_line, text
from neuralpile_dagster.orchestration.metadata.summaries import plural

Layer = Literal["manifest", "spike_trains", "spike_counts", "hub_dataset"]
OWNERS = ["team:neuralpile"]
_KINDS: dict[str, set[str]] = {
    "manifest": {"json"},
    "spike_trains": {"parquet", "hdf5"},
    "spike_counts": {"parquet", "numpy"},
    "hub_dataset": {"huggingface", "parquet"},
}


_TEXTS: dict[str, str] = {
    "manifest": (
        "Which recording sessions there are, and the archive files that each is made of. **Start here**: it "
        "asks the archive for its list of files (nothing is downloaded), chooses sessions by the catalog's "
        "rule, and makes one partition per session for the assets that follow."
    ),
    "spike_trains": (
        "The spike times of every sorted unit, in seconds, and the table of units. One partition is one "
        "recording session. Only spike times and small columns of the unit table are read from a recording. "
        "Materialize it together with `spike_counts`; a session that fails leaves the others going."
    ),
    "spike_counts": (
        "How many spikes each unit fired in each time bin (uint8; 20 ms unless set otherwise). One partition "
        "is one recording session, cut into segments of about 10 million tokens; a token is one unit in one "
        "bin. To build what is missing: *Materialize*, then *Failed and missing*. What is done already is not"
        " done again."
    ),
    "hub_dataset": (
        "All finished sessions, published as one Hugging Face dataset: rows of spike counts, a table of "
        "units, a table of sessions, and a card. It refuses while sessions are missing, unless "
        "`min_session_share` in the launchpad allows it; the card then names them."
    ),
}
_MARKUP = str.maketrans("*`<>", "    ")


def _text(dataset: Dataset, layer: Layer) -> str:
    """Markdown; its first line is what lists of assets show, as plain text."""
    where = [f"Source: {link(dataset.source.label, dataset.source.url)}"]
    where += [f"species: {text(dataset.species)}"] if dataset.species else []
    where += [f"data: {doi_link(dataset.doi)}"] if dataset.doi else []
    where += [f"paper: {doi_link(dataset.paper_doi)}"] if dataset.paper_doi else []
    parts = [
        one_line(dataset.title).translate(_MARKUP),
        "**SYNTHETIC**: recordings made by a generator, not data of any brain." if dataset.synthetic else "",
        _TEXTS[layer],
        text(dataset.description, 2000),
        " · ".join(where),
        _published(dataset),
        "\n".join(f"- {text(note, 2000)}" for note in dataset.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def _published(dataset: Dataset) -> str:
    """The numbers of the published pile, which checks compare ours with."""
    numbers = {
        "session": dataset.sessions_published,
        "subject": dataset.subjects_published,
        "token": dataset.tokens_published,
    }
    known = [plural(number, noun) for noun, number in numbers.items() if number is not None]
    expected = dataset.sessions_expected
    words = [f"In the published pile: {', '.join(known)}."] if known else []
    if expected is not None and expected != dataset.sessions_published:
        words.append(f"The session rule should give {plural(expected, 'session')}.")
    return " ".join(words)


def asset_facts(dataset: Dataset, layer: Layer) -> dict[str, Any]:
    """Keyword arguments that every asset decorator of a dataset takes."""
    return {**spec_facts(dataset, layer), "group_name": dataset.key}


def spec_facts(dataset: Dataset, layer: Layer) -> dict[str, Any]:
    """The same for an `AssetSpec` (whose group is given apart)."""
    links = {"source": dg.MetadataValue.url(dataset.source.url)} if dataset.source.url else {}
    if dataset.paper_doi:
        links["paper"] = dg.MetadataValue.url(f"https://doi.org/{dataset.paper_doi}")
    numbers = {
        "tokens_published": dataset.tokens_published,
        "sessions_published": dataset.sessions_published,
        "sessions_expected": dataset.sessions_due,
    }
    return {
        "description": _text(dataset, layer),
        "kinds": _KINDS[layer] | {dataset.source.archive},
        "owners": OWNERS,
        "tags": {"dataset": dataset.name, "layer": layer, "species": _tag(dataset.species or "unknown")},
        "metadata": {**links, **{name: value for name, value in numbers.items() if value is not None}},
    }


def _tag(text: str) -> str:
    """A text as Dagster's tags allow it: letters, digits and ``_-.``, at most 63."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:63].strip("_.-") or "unknown"


_PILE_TEXTS = {
    "manifest": (
        "The plan of the pile\n\nWhich components it has, the order of all their rows (shuffled by `seed`), "
        "which rows are train and which test, and how they are cut into shards. Shift-click *Materialize* to "
        "set seed, split and components. Datasets that are not published yet are left out and listed; Dagster"
        " asks *Are you sure?* about them."
    ),
    "shards": (
        "The Parquet files of the pile\n\nRows of the components in the plan's order, copied as they are "
        "encoded. One partition is one shard, named after its plan; shards of older plans can be left alone."
    ),
    "hub_dataset": (
        "The neural pile\n\nAll components merged, shuffled, split into train and test, and published as one "
        "Hugging Face dataset. `source_dataset` says which component a row comes from."
    ),
}


def pile_facts(layer: Literal["manifest", "shards", "hub_dataset"]) -> dict[str, Any]:
    """Keyword arguments that the pile's asset decorators take."""
    kinds = {"manifest": {"parquet", "json"}, "shards": {"parquet"}, "hub_dataset": {"huggingface", "parquet"}}
    return {
        "description": _PILE_TEXTS[layer],
        "kinds": kinds[layer],
        "owners": OWNERS,
        "tags": {"dataset": "neural-pile", "layer": layer},
        "group_name": PILE,
    }
