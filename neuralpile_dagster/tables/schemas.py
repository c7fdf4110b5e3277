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

MOTIFS_SCHEMA = pa.schema(
    [
        ("bucket", pa.uint8()),
        ("key", pa.uint64()),  # null: a motif without a key
        ("patch", pa.binary()),  # of a motif without a key: a byte per cell, unit after unit
        ("count", pa.int64()),
    ]
)
MOTIF_TABLE_SCHEMA = pa.schema(
    [
        ("patch", pa.list_(pa.uint8())),  # spikes in each cell, unit after unit
        ("frequency", pa.int64()),  # patches like it
        ("probability", pa.float64()),  # their share of all patches
    ]
)
MOTIF_TAIL_SCHEMA = pa.schema(
    [
        ("least_frequency", pa.int64()),
        ("greatest_frequency", pa.int64()),
        ("motifs", pa.int64()),  # with a frequency from least to greatest
        ("patches", pa.int64()),  # sum of their frequencies
        ("probability", pa.float64()),
    ]
)

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

SESSION_FILE = pa.struct(
    [
        ("path", pa.string()),
        ("file_id", pa.string()),
        ("size", pa.int64()),
        ("digest", pa.string()),
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
        ("files", pa.list_(SESSION_FILE)),
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
PUBLISHED_SESSIONS_SCHEMA = pa.schema(
    [
        *CLOCKED_SESSIONS_SCHEMA,  # whose observed_s is without the file's invalid_times where annotations are known
        ("n_trials", pa.int64()),  # rows of the table trials
        ("areas", pa.list_(pa.string())),  # the different brain areas of its units
        ("mean_rate_hz", pa.float64()),  # spikes per unit and second observed
        ("license", pa.string()),
        ("doi", pa.string()),
    ]
)
ANNOTATED_UNITS_SCHEMA = pa.schema(
    [
        *UNITS_SCHEMA,
        ("x_um", pa.float64()),  # of the peak electrode, as its file states it
        ("y_um", pa.float64()),
        ("z_um", pa.float64()),
        ("electrode", pa.int64()),  # its id
        ("coordinate_note", pa.string()),  # how the electrode was found, and what the file says about coordinates
        ("observed_s", pa.float64()),  # without the file's invalid_times where annotations are known
        ("good", pa.list_(pa.string())),  # names of the rules (`good_units` of the catalog's row) that hold
    ]
)
"""Of repositories that an earlier version published."""
PUBLISHED_UNITS_SCHEMA = pa.schema(
    [
        *ANNOTATED_UNITS_SCHEMA,
        ("order", pa.int32()),  # place of the unit among those of its session, alike ones side by side (`unit_order`)
    ]
)
UNIT_ORDER_SCHEMA = pa.schema(
    [
        ("row", pa.int32()),  # of spike_counts
        ("order", pa.int32()),
    ]
)

STORED_INTERVALS_SCHEMA = pa.schema(
    [
        ("table", pa.string()),
        ("row", pa.int32()),
        ("start_time", pa.float64()),  # seconds of the session's clock; may be NaN
        ("stop_time", pa.float64()),
        ("values", pa.string()),  # the other columns: a JSON object
    ]
)
STORED_METRICS_SCHEMA = pa.schema(
    [
        ("row", pa.int32()),  # of spike_counts
        ("name", pa.string()),
        ("value", pa.float64()),
        ("text", pa.string()),
    ]
)
INTERVALS_SCHEMA = pa.schema(
    [
        ("session_id", pa.string()),
        ("table", pa.string()),
        ("row", pa.int32()),
        ("start_time", pa.float64()),
        ("stop_time", pa.float64()),
        ("start_bin", pa.int64()),  # of the session, not of a segment; null where the time is NaN
        ("stop_bin", pa.int64()),  # the first bin after it
        ("inside", pa.bool_()),  # whether any of it lies within the session's bins
        ("values", pa.string()),
    ]
)
UNIT_METRICS_SCHEMA = pa.schema([("session_id", pa.string()), *STORED_METRICS_SCHEMA])
SPIKE_SEGMENTS_SCHEMA = pa.schema(
    [
        ("session_id", pa.string()),
        ("file", pa.string()),  # in the repository: the spike times of the session
        ("segment_id", pa.string()),  # as in the repository of spike counts
        ("start_bin", pa.int64()),  # in the session
        ("stop_bin", pa.int64()),
        ("start_s", pa.float64()),  # on the clock of the spike times; null where the origin is
        ("origin_s", pa.float64()),  # when bin 0 begins; null where the record of an earlier version does not say
        ("bin_width_s", pa.float64()),
        ("bin_rule", pa.string()),  # histogram or from_first_spike
    ]
)
"""Segments in a repository of spike times: how the counts were made from them."""
SEGMENTS_SCHEMA = pa.schema(
    [
        ("session_id", pa.string()),
        ("segment_id", pa.string()),
        ("start_bin", pa.int64()),  # in the session
        ("stop_bin", pa.int64()),
        ("start_s", pa.float64()),  # on the clock of the spike times
        ("split", pa.string()),
        ("file", pa.string()),  # in the repository
        ("row_group", pa.int32()),  # of that file, which holds this segment alone
        ("n_units", pa.int32()),
        ("tokens", pa.int64()),
        ("bytes", pa.int64()),  # compressed
    ]
)
