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
    """How to load: Python that runs as it stands; ``units`` where the repository has a ``units`` config."""
    load_units = f'\n\nunits = load_dataset("{repository}", "units", split="train")' if units else ""
    return f'''\
```python
import numpy as np
from datasets import load_dataset

# Streaming reads only what you ask for, and needs no disk. The path of a local copy does as well as the name.
rows = load_dataset("{repository}", split="{split}", streaming=True)
for batch in rows.with_format("arrow").iter(batch_size=1):
    units = batch["spike_counts"].chunk(0).flatten()
    counts = np.asarray(units.flatten()).reshape(len(units), -1)  # uint8, units x bins: a view, nothing is copied
    break{load_units}
```

- Without `streaming=True`, `load_dataset` writes a cache of 1 byte per token to your disk before the first row.
- `with_format("numpy")` gives int64, eight times the memory; `with_format("numpy", dtype=np.uint8)` gives the counts as
  they are, and the Arrow view above copies nothing.
- Rows are large (up to about 10 million tokens each): use small batches.'''.splitlines()


def columns(schema: pa.Schema) -> list[str]:
    """What the columns of a row mean."""
    meanings = {
        "spike_counts": "`list<list<uint8>>`: units x bins, spikes of each unit in each bin, at most 255",
        "subject_id": "`string`: the source's folder of the animal",
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
