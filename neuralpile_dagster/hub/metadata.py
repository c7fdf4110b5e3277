"""The YAML block at the top of a dataset's card: what `datasets` and the Hub read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from neuralpile_dagster.hub.markdown import one_line


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
    """The card's YAML between its ``---`` lines, written by the libraries that will read it.

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
