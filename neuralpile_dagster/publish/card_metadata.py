"""The YAML metadata block at the top of a dataset's card, which `datasets` and the Hub read.

The card's Markdown belongs in `card` and `pile_card`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from neuralpile_dagster.markdown import one_line


@dataclass(frozen=True)
class Split:
    """One split of a config: which files (a pattern), and how large: ``num_bytes`` are bytes of Arrow data."""

    path: str
    num_examples: int
    num_bytes: int


@dataclass(frozen=True)
class Config:
    """One config of a repository; ``download_size`` is the sum of its Parquet files' bytes."""

    name: str
    schema: pa.Schema
    splits: Mapping[str, Split]
    download_size: int


def row_arrow_bytes(n_units: int, n_bins: int, texts: Sequence[str]) -> int:
    """Bytes of a row in Arrow: counts, one int32 offset a unit, and for each list and text an offset and its bytes."""
    return n_units * n_bins + 4 * n_units + 4 + sum(4 + len(text.encode()) for text in texts)


def metadata_block(
    configs: Sequence[Config],
    *,
    pretty_name: str,
    licenses: Sequence[str],
    tags: Sequence[str],
    n_rows: int,
) -> str:
    """YAML block of a card, between its ``---`` lines, written by the libraries that will read it.

    ``licenses`` are the Hub's identifiers; without any the field is absent.
    """
    from datasets import DatasetInfo, Features, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCardData

    infos, data_files = DatasetInfosDict(), MetadataConfigs()
    for config in configs:
        infos[config.name] = DatasetInfo(
            features=Features.from_arrow_schema(config.schema),
            splits=SplitDict({n: SplitInfo(n, s.num_bytes, s.num_examples) for n, s in config.splits.items()}),
            download_size=config.download_size,
            dataset_size=sum(split.num_bytes for split in config.splits.values()),
        )
        data_files[config.name] = {"data_files": [{"split": n, "path": s.path} for n, s in config.splits.items()]}
    card = DatasetCardData(
        license=list(licenses) if len(licenses) > 1 else next(iter(licenses), None),
        pretty_name=one_line(pretty_name),
        tags=list(tags),
        size_categories=[size_category(n_rows)],
    )
    infos.to_dataset_card_data(card)
    data_files.to_dataset_card_data(card)
    return f"---\n{card.to_yaml().strip()}\n---\n"


def size_category(n_rows: int) -> str:
    """The Hub's category of a dataset's size, by number of rows."""
    names = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M"]
    return next((name for power, name in enumerate(names, 3) if n_rows < 10**power), "100M<n<1B")


# From the Hub's list of licenses (huggingface.co/docs/hub/repositories-licenses): those that data archives offer.
_ON_HUB = frozenset(
    {
        *(f"cc-by-{v}" for v in ("2.0", "2.5", "3.0", "4.0")),
        *(f"cc-by-sa-{v}" for v in ("3.0", "4.0")),
        *(f"cc-by-nc-{v}" for v in ("2.0", "3.0", "4.0")),
        *(f"cc-by-nd-{v}" for v in ("4.0",)),
        *(f"cc-by-nc-nd-{v}" for v in ("3.0", "4.0")),
        *(f"cc-by-nc-sa-{v}" for v in ("2.0", "3.0", "4.0")),
        *("cc0-1.0", "pddl", "odbl", "odc-by", "mit", "apache-2.0", "bsd-3-clause", "bsd-2-clause"),
        *("gpl", "gpl-2.0", "gpl-3.0"),
    }
)
_OTHER_NAMES = {
    "cc0": "cc0-1.0",
    "pddl-1.0": "pddl",
    "odbl-1.0": "odbl",
    "odc-by-1.0": "odc-by",
    **{f"gpl-{v}{end}": f"gpl-{v}" for v in ("2.0", "3.0") for end in ("+", "-only", "-or-later")},
}
_CREATIVE_COMMONS_URL = re.compile(r"^https?://creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/([0-9.]+)/?.*$")


def hub_licenses(stated: str | None) -> list[str]:
    """The Hub's identifiers of all licenses that a source states, sorted; several are separated by commas.

    ``cc-by-4.0`` for ``spdx:CC-BY-4.0``, ``CC BY 4.0`` or the license's URL. Empty when nothing is stated or the Hub
    has no identifier for one of them: never a guess, and never a part of them.
    """
    found = [_identifier(name) for name in (stated or "").split(",")]
    known = {name for name in found if name in _ON_HUB}
    return sorted(known) if len(known) == len(set(found)) else []


def _identifier(stated: str) -> str:
    name = stated.strip().lower()
    if url := _CREATIVE_COMMONS_URL.match(name):
        name = "cc0-1.0" if url[2] == "zero" else f"cc-{url[2]}-{url[3]}"
    name = re.sub(r"[\s_]+", "-", name.removeprefix("spdx:").strip())
    return _OTHER_NAMES.get(name, name)
