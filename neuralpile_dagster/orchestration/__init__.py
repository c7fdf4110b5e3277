"""The Dagster layer: wiring only. What computes is in the other rooms."""

import warnings

from dagster_shared.utils.warnings import BetaWarning, PreviewWarning  # all of dagster takes a second to import

# partitioned checks and backfill policies are what this platform stands on; the versions are pinned
for _category in (BetaWarning, PreviewWarning):
    warnings.filterwarnings("ignore", category=_category)
