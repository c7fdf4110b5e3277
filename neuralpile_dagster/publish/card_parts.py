"""Parts that cards share: the metadata block at the top, licenses, citations, and how to use a repository.

The metadata block (YAML) is what `datasets` and the Hub read. What a pile's card says to cite is in its
``CITATION.bib`` as well. Cards themselves belong in `card`, `pile_card`, `spikes`, `motif_table` and `tokens`; the
BibTeX of one source is made in `catalog.describe`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from neuralpile_dagster.catalog.describe import bibtex, bibtex_entry
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.markdown import doi_link, link, one_line, text
from neuralpile_dagster.records import Citation, ComponentCitation

BIBLIOGRAPHY = "CITATION.bib"
_AUTHORS_NAMED = 3


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


def card_text(
    lines: Iterable[str],
    configs: Sequence[Config],
    *,
    pretty_name: str,
    licenses: Sequence[str],
    tags: Sequence[str],
    synthetic: bool,
    n_rows: int,
) -> str:
    """Text of a README.md: the metadata block, and the lines of the card below it."""
    every = [*tags, *(["synthetic"] if synthetic else [])]
    header = metadata_block(configs, pretty_name=pretty_name, licenses=licenses, tags=every, n_rows=n_rows)
    return header + "\n" + "\n".join(lines).rstrip() + "\n"


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


def licenses_of_all(stated: Iterable[str | None]) -> list[str]:
    """The Hub's identifiers of what several sources state, sorted; empty when those of one of them are not known."""
    found = [hub_licenses(licenses) for licenses in stated]
    return sorted({name for names in found for name in names}) if all(found) else []


def _identifier(stated: str) -> str:
    name = stated.strip().lower()
    if url := _CREATIVE_COMMONS_URL.match(name):
        name = "cc0-1.0" if url[2] == "zero" else f"cc-{url[2]}-{url[3]}"
    name = re.sub(r"[\s_]+", "-", name.removeprefix("spdx:").strip())
    return _OTHER_NAMES.get(name, name)


def cite_dataset(dataset: Dataset, citation: Citation, version: str) -> ComponentCitation:
    """Citation of a component of ours: its source's own metadata, and the catalog's row where they state nothing.

    Without BibTeX for synthetic recordings.
    """
    return ComponentCitation(
        title=citation.title or dataset.title,
        authors=citation.authors or dataset.authors,
        doi=citation.doi or dataset.doi,
        url=citation.url or dataset.source.url,
        bibtex=bibtex(dataset, citation, version),
    )


def cite_repository(name: str, repository: str, page: str | None) -> ComponentCitation:
    """Citation of rows of another owner: the repository, whose README says what it was made from.

    ``name`` is their ``source_dataset``, ``page`` the repository's web page, if it has one.
    """
    key = "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", part) for part in (name, *repository.split("/")))
    fields = {"title": repository, "note": "Its README says what to cite"}
    return ComponentCitation(title=repository, url=page, bibtex=bibtex_entry(key, fields, url=page), foreign=True)


def cite_lines(citations: Mapping[str, ComponentCitation]) -> list[str]:
    """Section of the card: a line for each component, by ``source_dataset``."""
    return [
        f"Please cite the sources of the components that you use; `{BIBLIOGRAPHY}` has an entry for each.",
        "",
        *(f"- {text(name)}: {_citation_line(citation)}" for name, citation in citations.items()),
    ]


def _citation_line(citation: ComponentCitation) -> str:
    if citation.foreign:
        readme = f"{citation.url}#readme" if citation.url else None
        return f"see {link(f'the README of {citation.title}', readme)}"
    if not citation.bibtex:
        return f"{text(citation.title)} (nothing to cite)"
    authors = [text(author) for author in citation.authors[:_AUTHORS_NAMED]]
    more = " et al." if len(citation.authors) > _AUTHORS_NAMED else ""
    address = doi_link(citation.doi) or (link(citation.url, citation.url) if citation.url else None)
    parts = [f"{'; '.join(authors)}{more}" if authors else "", text(citation.title), address or ""]
    return ". ".join(part.rstrip(".") for part in parts if part)


def bibliography(citations: Mapping[str, ComponentCitation]) -> str:
    """Text of ``CITATION.bib``: an entry for each component, or a comment where there is nothing to cite."""
    # outside of an entry BibTeX takes everything for a comment but @
    entries = [
        citation.bibtex or f"% {text(name).replace('@', '')}: synthetic, nothing to cite"
        for name, citation in citations.items()
    ]
    return "\n\n".join(entries) + "\n"


CONFIG_TEXTS = {
    "units": "one row per unit of a session, in the row order of `spike_counts` (`row`): id, brain area and how it was "
    "found, probe, quality label, spikes, mean rate while observed, and when it was observed where the source says so; "
    "position of its peak electrode and names of the quality rules that hold (`good`) where the session is annotated; "
    "its place in an order in which units that fire together lie side by side (`order`; null where it was not made)",
    "sessions": "one row per session: subject, sex, age, species, start time, duration, time of bin 0 (`origin_s`), "
    "first spike, seconds observed, trials, areas, mean rate, sizes, license, DOI, and its source files with their "
    "digests",
    "segments": "one row per row of the dataset: its bins in the session, when it begins, and the file and row group "
    "that hold it",
    "intervals": "one row per trial, epoch, stimulus or invalid time (`table`): start and stop in seconds and in bins "
    "of the session (`start_bin` to before `stop_bin`), whether any of it was binned (`inside`), and the other columns "
    "of the source as JSON (`values`)",
    "unit_metrics": "what the source states of each unit beyond that, in long form: `row` of `spike_counts`, `name`, "
    "and `value` or `text`",
    "splits": "one row per session: the animal, tokens, the number `u` that the hash rule compares with the sizes of "
    "splits, its split (null: its rows are in several), the public benchmarks that it is in, and the session with the "
    "same spikes that it follows",
    "token_counts": "how many tokens have each value from 0 to 255 (`count`), by `source_dataset` and `split`, and "
    "their share of the tokens there (`probability`)",
    "preview": "the first bins of a few sessions, for the web viewer",
}
_READ_UNITS = """\
# one row per unit
units = pd.read_parquet(f"{repository}/units/units.parquet", pre_buffer=False, use_threads=False)"""


def loading(repository: str, split: str, units: bool) -> list[str]:
    """Section on loading: Python that runs as is; ``units`` is whether the repository has a ``units`` config."""
    pandas = "\nimport pandas as pd" if units else ""
    read_units = f"\n\n{_READ_UNITS}" if units else ""
    return f'''\
```python
# pip install huggingface_hub pandas pyarrow
import fsspec
import numpy as np{pandas}
import pyarrow.parquet as pq

repository = "hf://datasets/{repository}"  # or the folder of a local copy


def read_rows(split):
    for shard in fsspec.open_files(f"{{repository}}/data/{{split}}-*.parquet"):
        with shard as file:
            yield from pq.ParquetFile(file, pre_buffer=False).iter_batches(batch_size=1, use_threads=False)


for row in read_rows("{split}"):
    by_unit = row["spike_counts"].flatten()
    counts = np.asarray(by_unit.flatten()).reshape(len(by_unit), -1)  # uint8, units x bins: a view, nothing is copied
    print(row["session_id"][0], row["segment_id"][0], counts.shape)
    break{read_units}
```

- This fetches what you read in blocks of about 5 MB, and writes nothing to disk (`pre_buffer=False` keeps pyarrow from
  reading 32 MB ahead). A row is up to about 10 million tokens: use small batches.
- With `use_threads=False` pyarrow reads in your thread: its own, still busy while Python exits, may abort the process.
- It avoids `load_dataset(..., streaming=True)`: with pyarrow 26, a script that leaves that loop early may never exit
  (apache/arrow#45214, huggingface/datasets#7467); reading to the end is safe.
- Without `streaming=True`, `load_dataset` writes a cache of 1 byte per token to your disk before the first row.
- `with_format("numpy")` gives int64, eight times the memory; `with_format("numpy", dtype=np.uint8)` gives the counts as
  they are.

For training, random windows in batches of one session each, which any number of processes share out and an interrupted
job resumes (docs/training.md of neuralpile-dagster):

```python
# pip install neuralpile-dagster, from its repository
from neuralpile_dagster.reading import Pile, Windows

repository = "hf://datasets/{repository}"  # or the folder of a local copy
windows = Windows(Pile.open(repository), n_bins=200, split="{split}", batch_size=32, epochs=None)
for batch in windows:  # counts: uint8, windows x units x bins; unit_index, mask, session, start_s
    print(batch["counts"].shape, windows.state_dict(batch))
    break
```'''.splitlines()


def columns(schema: pa.Schema) -> list[str]:
    """Section on the columns of a row."""
    meanings = {
        "spike_counts": "`list<list<uint8>>`: units x bins, spikes of each unit in each bin, at most 255",
        "subject_id": "`string`: the animal, as its folder in the source is named",
        "session_id": "`string`: the recording session",
        "segment_id": "`string`: `segment_0`, `segment_1`, ...: consecutive pieces of a session, in order of time",
        "source_dataset": "`string`: the dataset that the row comes from",
    }
    return [f"- `{name}` {meanings[name]}" for name in schema.names]


def config_lines(names: Iterable[str]) -> list[str]:
    """Section on the extra configs."""
    return [f"- `{name}`: {CONFIG_TEXTS[name]}" for name in names if name in CONFIG_TEXTS]
