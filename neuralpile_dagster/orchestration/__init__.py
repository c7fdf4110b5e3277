"""The Dagster layer: wiring only. What computes is in the other rooms."""

import warnings

import dagster as dg

# partitioned checks and backfill policies are what this platform stands on; the versions are pinned
for _category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=_category)
