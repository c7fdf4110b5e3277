"""Spike times of a component as a folder of files, ready to publish: the stored files, and tables that explain them.

Published where a person asks for them. How the files are encoded belongs in `tables.spike_trains`, reading them in
`reading`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from neuralpile_dagster.catalog.describe import code
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.files import explained, locked, write_bytes
from neuralpile_dagster.markdown import link, text
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.publish import annotations as annotated
from neuralpile_dagster.publish.card import (
    PROGRAM,
    missing_section,
    source_section,
    verification_section,
    warnings_section,
)
from neuralpile_dagster.publish.card_parts import CONFIG_TEXTS, Config, card_text, hub_licenses
from neuralpile_dagster.publish.component import Pairs, clock_of, keep_only, session_configs
from neuralpile_dagster.publish.configs import write_config
from neuralpile_dagster.publish.segments import bins_of_rows
from neuralpile_dagster.recordings.manifest import Manifest
from neuralpile_dagster.records import ComponentRecord, CountsRecord, TrainsRecord, UnitOrderRecord
from neuralpile_dagster.store import Store, fetch
from neuralpile_dagster.tables.annotations import AnnotationsRecord
from neuralpile_dagster.tables.schemas import SPIKE_SEGMENTS_SCHEMA
from neuralpile_dagster.tables.spike_trains import read_bin_rule

TAGS = ("neuroscience", "electrophysiology", "spike-times", "neural-population-activity")


def spikes_path(key: str) -> str:
    """Path of a session's spike times in the repository."""
    return f"spikes/{key}.parquet"


def write_spikes(
    folder: Path,
    store: Store,
    dataset: Dataset,
    manifest: Manifest,
    component: ComponentRecord,
    records: Mapping[str, CountsRecord],
    trains: Mapping[str, TrainsRecord],
    *,
    annotations: Mapping[str, AnnotationsRecord],
    orders: Mapping[str, UnitOrderRecord],
    progress: Progress = print,
) -> None:
    """Make ``folder`` hold exactly the repository of spike times: files of sessions, configs and card.

    The files are links to those of the store where both lie on one disk. The same inputs give the same bytes. May be
    called again after any failure.

    Parameters
    ----------
    folder : Path
        Given over to this function: other files in it are removed.
    store : Store
    dataset, manifest
        The catalog's row, and what the archive listed.
    component : ComponentRecord
        The repository of counts, as written; names the one of spike times (``component.spikes``).
    records : mapping of str to CountsRecord
        Of the component's sessions, by key.
    trains : mapping of str to TrainsRecord
        What their counts were made from, of those that have spike times.
    annotations : mapping of str to AnnotationsRecord
        Of the sessions that have any.
    orders : mapping of str to UnitOrderRecord
        The same.
    progress : callable

    Raises
    ------
    TableError, StoreError
        A session's file is damaged or gone; names it.
    DiskFull
        Where files have to be copied.
    """
    pairs = [(session, records[session.key]) for session in manifest.sessions if session.key in trains]
    with explained(folder), locked(folder.parent / f".{folder.name}.lock", progress, f"{folder.name} is being made"):
        for key, record in trains.items():
            fetch(store, record.file, folder / spikes_path(key))
        published = {session.key: record for session, record in pairs}
        used, ordered = annotated.matching(annotations, published), annotated.matching_orders(orders, published)
        segments = [_segments(folder, dataset, session.key, record) for session, record in pairs]
        configs = [
            *session_configs(folder, store, dataset, manifest, pairs, used, ordered),
            write_config(folder, "segments", SPIKE_SEGMENTS_SCHEMA, segments),
        ]
        write_bytes(folder / "README.md", _card(dataset, manifest, component, pairs, configs).encode())
        paths = [split.path for config in configs for split in config.splits.values()]
        keep_only(folder, ["README.md", *map(spikes_path, trains), *paths])


def _segments(folder: Path, dataset: Dataset, key: str, record: CountsRecord) -> pa.Table:
    path = spikes_path(key)
    rule, clock = read_bin_rule(folder / path, path), clock_of(dataset, record)
    of_session = {
        "session_id": record.session_id,
        "file": path,
        "origin_s": clock.origin_s,
        "bin_width_s": clock.bin_width_s,
        "bin_rule": rule,
    }
    rows = [{**of_session, **bins} for _, bins in bins_of_rows(record.rows, clock)]
    return pa.Table.from_pylist(rows, SPIKE_SEGMENTS_SCHEMA)


def _card(
    dataset: Dataset, manifest: Manifest, component: ComponentRecord, pairs: Pairs, configs: Sequence[Config]
) -> str:
    spikes, counts = component.spikes, [record for _, record in pairs]
    assert spikes is not None, "written with them"
    ready_made = component.totals.sessions - spikes.sessions
    page = spikes.url and spikes.url.removesuffix(spikes.repository) + component.repository
    lines = [
        *[f"# {text(dataset.title)}: spike times", ""],
        *warnings_section(manifest, component),
        f"Spike times of sorted units, as the source has them, to the last bit: {spikes.spikes:,} spikes of "
        f"{spikes.sessions:,} sessions. The spike counts that {PROGRAM} made from them, in bins of "
        f"{spikes.bin_width_s * 1000:g} ms, are in {link(component.repository, page)}.",
        *(["", f"{ready_made:,} sessions are not here: their files hold counts, no times."] if ready_made else []),
        *["", "## Source", "", *source_section(dataset, manifest, counts), ""],
        *["## Use", "", *_use(spikes.repository, spikes_path(pairs[0][0].key)), ""],
        *["## Files", "", *_FILES, ""],
        *["## Configs", "", *(f"- {code(c.name)}: {_CONFIG_TEXTS.get(c.name, CONFIG_TEXTS[c.name])}" for c in configs)],
        *["", "## Bins", "", *_BINS, ""],
        *verification_section(counts),
        *missing_section(component),
    ]
    return card_text(
        lines,
        configs,
        pretty_name=f"{dataset.title}: spike times",
        licenses=hub_licenses(manifest.citation.license),
        tags=TAGS,
        synthetic=component.synthetic,
        n_rows=sum(record.stats.n_units for record in counts),
    )


_CONFIG_TEXTS = {
    "segments": "one row per row (segment) of the spike counts: the file here with its session's spike times, its bins "
    "in the session, when it begins (`start_s`), when bin 0 of the session begins (`origin_s`), the width of bins and "
    "the rule by which they were made (`bin_rule`)",
}
_FILES = [
    "`spikes/<session>.parquet` is one session. Its rows are units, in the row order of its spike counts:",
    "",
    "- `unit_id`, `file`, `brain_area`, `brain_area_from`, `probe`, `quality`, `cell_type`, `obs_intervals`: as in the "
    "config `units`",
    "- `ticks_per_s`: the clock of the unit's `ticks` (Hz), or null",
    "- `ticks`: `list<int64>`, one per spike in the order of the source. Seconds are `ticks / ticks_per_s` in float64. "
    "Where `ticks_per_s` is null no common clock gives back every bit, and `ticks` are the bit patterns of the float64 "
    "seconds: they have to be reinterpreted, not divided (`ticks.view(numpy.float64)`)",
    "",
    "Negative times, NaN and times twice are kept where the source has them.",
]
_BINS = [
    "`bin_rule` says how the counts follow from the times (docs/binning.md of neuralpile-dagster has the details):",
    "",
    "- `histogram`: the edges are `numpy.arange(0, latest + width, width)`; bin i holds `edge[i] <= t < edge[i + 1]`, "
    "the last one also its right edge. Negative times and NaN are in no bin",
    "- `from_first_spike`: a spike is in bin `floor((t - origin_s) / width)`, where `origin_s` is the first spike of "
    "all units; the last spike of a whole number of bins is in the last one",
    "",
    "A bin holds at most 255 spikes.",
]


def _use(repository: str, path: str) -> list[str]:
    return f'''\
```python
# pip install huggingface_hub, and neuralpile-dagster from its repository
from huggingface_hub import hf_hub_download
from neuralpile_dagster.reading import spike_times

file = hf_hub_download("{repository}", "{path}", repo_type="dataset")  # or its path in a local copy
trains = spike_times(file)  # seconds: one float64 array for each unit
```

`neuralpile_dagster.reading.to_brainset(file, target)` writes the HDF5 file that torch_brain reads. Without the package:

```python
import numpy as np
import pyarrow.parquet as pq

trains = []
for batch in pq.ParquetFile(file).iter_batches(batch_size=1, columns=["ticks_per_s", "ticks"]):
    rate, ticks = batch["ticks_per_s"][0].as_py(), batch["ticks"].flatten().to_numpy()
    trains.append(ticks.view(np.float64) if rate is None else ticks / rate)
```'''.splitlines()
