"""What the UI says about an asset: group, kinds, tags, owners, description. Derived from the catalog row."""

from __future__ import annotations

import re
from typing import Any, Literal

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.orchestration.names import PILE

Layer = Literal["manifest", "spike_trains", "spike_counts", "hub_dataset"]
OWNERS = ["team:neuralpile"]
_KINDS: dict[str, set[str]] = {
    "manifest": {"json"},
    "spike_trains": {"parquet", "hdf5"},
    "spike_counts": {"parquet", "numpy"},
    "hub_dataset": {"huggingface", "parquet"},
}


def _text(dataset: Dataset, layer: Layer) -> str:
    texts = {
        "manifest": "Its recording sessions: which archive files they are made of, where and in which version.",
        "spike_trains": "Spike times of every sorted unit of a session (seconds), with the unit table, one partition "
        "per session. Only the spike times and small per-unit columns are read from the recording.",
        "spike_counts": "Spikes per unit and bin (uint8), cut into segments of about 10 million tokens, one partition "
        "per session. A token is one unit in one bin.",
        "hub_dataset": "All its sessions as one published Hugging Face dataset: shards, unit and session tables, card.",
    }
    lines = [f"**{dataset.title}**", "", texts[layer], "", f"Source: {dataset.source.label}"]
    if dataset.synthetic:
        lines.insert(0, "SYNTHETIC recordings made by a generator; not data of any brain.\n")
    if dataset.species:
        lines[-1] += f" · species: {dataset.species}"
    if dataset.doi:
        lines.append(f"DOI: [{dataset.doi}](https://doi.org/{dataset.doi})")
    return "\n".join(lines)


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
    "manifest": "The pile's plan: which components, the order of all rows, the split into train and test, the shards.",
    "shards": "Parquet shards of the pile: rows of the components copied in the plan's order, one partition per shard. "
    "Partitions of older plans are ignored.",
    "hub_dataset": "The neural pile as one published Hugging Face dataset with the splits train and test.",
}


def pile_facts(layer: Literal["manifest", "shards", "hub_dataset"]) -> dict[str, Any]:
    """Keyword arguments that the pile's asset decorators take."""
    kinds = {"manifest": {"parquet", "json"}, "shards": {"parquet"}, "hub_dataset": {"huggingface", "parquet"}}
    return {
        "description": f"**The neural pile**\n\n{_PILE_TEXTS[layer]}",
        "kinds": kinds[layer],
        "owners": OWNERS,
        "tags": {"dataset": "neural-pile", "layer": layer},
        "group_name": PILE,
    }
