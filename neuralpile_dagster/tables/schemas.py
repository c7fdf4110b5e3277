"""The Arrow schemas of everything we publish or store.

`ROW_SCHEMA` is a contract with code trained on the published pile: exactly
these columns in this order, nothing added.
"""

from __future__ import annotations

import pyarrow as pa

COUNTS = pa.list_(pa.list_(pa.uint8()))

ROW_SCHEMA = pa.schema(
    [
        ("spike_counts", COUNTS),  # units x bins
        ("subject_id", pa.string()),
        ("session_id", pa.string()),
        ("segment_id", pa.string()),
    ]
)
PILE_SCHEMA = ROW_SCHEMA.append(pa.field("source_dataset", pa.string()))

UNITS_SCHEMA = pa.schema(
    [
        ("subject_id", pa.string()),
        ("session_id", pa.string()),
        ("row", pa.int32()),  # row of spike_counts, from 0
        ("unit_id", pa.int64()),
        ("file", pa.string()),
        ("brain_area", pa.string()),
        ("brain_area_from", pa.string()),
        ("probe", pa.string()),
        ("quality", pa.string()),
        ("cell_type", pa.string()),
        ("n_spikes", pa.int64()),  # kept in the counts
        ("mean_rate_hz", pa.float64()),
        ("obs_intervals", pa.list_(pa.list_(pa.float64()))),
    ]
)

TOKEN_COUNTS_SCHEMA = pa.schema(
    [
        ("source_dataset", pa.string()),
        ("split", pa.string()),
        ("value", pa.uint8()),  # spikes in a bin
        ("count", pa.int64()),  # tokens that have this value
        ("probability", pa.float64()),  # their share of the tokens of this source in this split
    ]
)

SPLITS_SCHEMA = pa.schema(
    [
        ("source_dataset", pa.string()),
        ("subject_id", pa.string()),
        ("session_id", pa.string()),
        ("subject", pa.string()),  # the animal, whatever its folders are called
        ("tokens", pa.int64()),
        ("u", pa.float64()),  # hash of the session (subject, dataset) in 0 <= u < 1 that the rule compares with sizes
        ("split", pa.string()),  # null: rows in several splits; left_out: not in the pile
        ("benchmarks", pa.list_(pa.string())),  # public lists that the session is in
        ("twin_of", pa.string()),  # source_dataset/session_id of the session with the same spikes that it follows
    ]
)

SESSIONS_SCHEMA = pa.schema(
    [
        ("subject_id", pa.string()),
        ("session_id", pa.string()),
        ("subject", pa.string()),
        ("sex", pa.string()),
        ("age", pa.string()),
        ("species", pa.string()),
        ("start_time", pa.string()),
        ("reference_time", pa.string()),  # when the clock of the spike times was 0
        ("duration_s", pa.float64()),
        ("bin_width_s", pa.float64()),
        ("n_units", pa.int32()),
        ("n_bins", pa.int64()),
        ("n_segments", pa.int32()),
        ("n_spikes", pa.int64()),
        ("tokens", pa.int64()),
        ("source_version", pa.string()),
        (
            "files",
            pa.list_(
                pa.struct(
                    [
                        ("path", pa.string()),
                        ("file_id", pa.string()),
                        ("size", pa.int64()),
                        ("digest", pa.string()),
                    ]
                )
            ),
        ),
    ]
)
CLOCKED_SESSIONS_SCHEMA = pa.schema(
    [
        *SESSIONS_SCHEMA,
        ("origin_s", pa.float64()),  # when bin 0 begins, on the clock of the spike times; null where counts were read
        ("first_spike_s", pa.float64()),  # on the clock of the spike times
        ("observed_s", pa.float64()),  # within obs_intervals where the file states them, else first to last spike
    ]
)
"""Of repositories that hold a session whose record has a clock; the others keep the table that they have."""
