"""Asset checks are the data tests.

`verdict` is what a check says, `session`, `dataset` and `pile` judge (one
function is one check; no dagster), `policy` is the one table of what a failed
check means, `wiring` hands all that to Dagster.
"""
