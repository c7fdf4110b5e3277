"""What a card says of using a repository: code that reads it, its columns, its configs."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

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
