"""The part of a card that is about use: how to load rows fast, what the configs hold, what to beware of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from neuralpile_dagster.hub.markdown import public, table, text

_MISSING_NAMED = 50

CONFIG_TEXTS = {
    "units": "one row per unit of a session, in the row order of `spike_counts` (`row`): id, brain area and how it was "
    "found, probe, quality label, spikes, mean rate, and when it was observed where the source says so",
    "sessions": "one row per session: subject, sex, age, species, start time, duration, sizes, and its source files "
    "with their digests",
    "preview": "the first bins of a few sessions, for the web viewer",
}


def loading(repository: str, split: str, units: bool) -> list[str]:
    """How to load: Python that runs as it stands, and ends; ``units`` where the repository has a ``units`` config."""
    pandas = "\nimport pandas as pd" if units else ""
    read_units = '\n\nunits = pd.read_parquet(f"{repository}/units/units.parquet")  # one row per unit' if units else ""
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
            yield from pq.ParquetFile(file).iter_batches(batch_size=1)


for row in read_rows("{split}"):
    by_unit = row["spike_counts"].flatten()
    counts = np.asarray(by_unit.flatten()).reshape(len(by_unit), -1)  # uint8, units x bins: a view, nothing is copied
    print(row["session_id"][0], row["segment_id"][0], counts.shape)
    break{read_units}
```

- This fetches only the rows that you ask for and writes nothing to disk. A row is up to about 10 million tokens: use
  small batches.
- It avoids `load_dataset(..., streaming=True)`: with pyarrow 26, a script that leaves that loop early may never exit
  (apache/arrow#45214, huggingface/datasets#7467); reading to the end is safe.
- Without `streaming=True`, `load_dataset` writes a cache of 1 byte per token to your disk before the first row.
- `with_format("numpy")` gives int64, eight times the memory; `with_format("numpy", dtype=np.uint8)` gives the counts as
  they are.'''.splitlines()


def columns(schema: pa.Schema) -> list[str]:
    """What the columns of a row mean."""
    meanings = {
        "spike_counts": "`list<list<uint8>>`: units x bins, spikes of each unit in each bin, at most 255",
        "subject_id": "`string`: the animal, as its folder in the source is named",
        "session_id": "`string`: the recording session",
        "segment_id": "`string`: `segment_0`, `segment_1`, ...: consecutive pieces of a session, in order of time",
        "source_dataset": "`string`: the dataset that the row comes from",
    }
    return [f"- `{name}` {meanings[name]}" for name in schema.names]


def configs(names: Iterable[str]) -> list[str]:
    """What the extra configs hold."""
    return [f"- `{name}`: {CONFIG_TEXTS[name]}" for name in names if name in CONFIG_TEXTS]


def warning(words: str) -> list[str]:
    """A paragraph that stands out; ``words`` are Markdown."""
    return [f"> **{words}**", ""]


def missing_table(missing: Mapping[str, str]) -> list[str]:
    """The sessions that are missing and why; the first ones by name, the others as a number."""
    named = list(missing.items())[:_MISSING_NAMED]
    lines = table(["session", "reason"], [(text(key), text(public(reason), 300)) for key, reason in named])
    more = len(missing) - len(named)
    return [*lines, *(["", f"and {more:,} more."] if more else [])]
