"""Dagster's entry point: the definitions of the instance that the environment names, made as this is imported.

Whoever needs others imports `orchestration.code_location`.
"""

from __future__ import annotations

import gc

# imports make no cycles worth a search, which takes a fifth of their time; the end of the file enables it again
gc.disable()

from neuralpile_dagster import process
from neuralpile_dagster.orchestration.code_location import build_definitions
from neuralpile_dagster.settings import Settings

try:
    defs = build_definitions(Settings.from_environment())
    gc.freeze()  # what was imported stays: no later collection looks at it
    process.relax_collector()
finally:
    gc.enable()
