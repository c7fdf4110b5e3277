"""What `neuralpile build` does: the datasets that a person names, one after the other, then their piles.

How one is made is in `launch`; printing belongs in `cli`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from neuralpile_dagster.catalog.load import find_dataset, load_catalog, load_piles
from neuralpile_dagster.catalog.piles import piles_of
from neuralpile_dagster.errors import HubError, NeuralPileError
from neuralpile_dagster.hub import open_hub
from neuralpile_dagster.orchestration.assets.overview import try_to_refresh
from neuralpile_dagster.orchestration.code_location import job_of_assets
from neuralpile_dagster.orchestration.launch import Launcher
from neuralpile_dagster.orchestration.resources import fail_abandoned, open_instance
from neuralpile_dagster.orchestration.runs import Outcome
from neuralpile_dagster.settings import ProcessSettings, Settings


def build(
    settings: Settings,
    datasets: Sequence[str],
    *,
    pattern: str | None = None,
    limit: int | None = None,
    min_session_share: float | None = None,
    merge: bool = False,
    annotations: bool = False,
    choices: Mapping[str, Any] | None = None,
) -> Outcome:
    """Build datasets one after the other, then their piles if ``merge``; a failed dataset does not stop the others.

    A failed session keeps its dataset from being published, unless ``min_session_share`` of the manifest's sessions
    are done. A part of a dataset never replaces a publication of more sessions. ``annotations`` reads the sessions'
    intervals and unit metrics too, before publishing; what fails there is only missing there. ``choices`` replace those
    of the last pile (run configuration of ``neural_pile/manifest``).
    Raises `ConfigurationError` for an unknown dataset or an invalid setting, before anything runs.
    """
    ProcessSettings.from_environment()  # here once, instead of as a failure of every session
    try:
        open_hub(settings).require_credentials()
    except HubError as error:  # sessions can be made, and are kept
        print(f"warning: nothing will be published: {error}", file=sys.stderr)
    catalog = load_catalog(settings)
    chosen = [find_dataset(settings, catalog, name) for name in datasets]
    if hidden := [row.name for row in chosen if row.name not in catalog]:
        settings = replace(settings, catalog=",".join([settings.catalog, *hidden]))
        catalog = load_catalog(settings)
        print(f"to see it in the UI as well: NEURALPILE_CATALOG={','.join(hidden)}", file=sys.stderr)
    rows = list(catalog.values())
    all_piles = load_piles(settings, rows)
    piles = piles_of(all_piles, chosen) if merge else []
    with open_instance(settings) as instance:
        for run_id in fail_abandoned(settings.home, instance):
            print(f"run {run_id} was abandoned (its process has exited) and is now marked as failed", file=sys.stderr)
        launcher = Launcher(settings, instance, job_of_assets(settings, chosen, piles, rows), datasets=rows)
        for pile in piles:
            launcher.require_possible(pile, choices)
        for dataset in chosen:
            try:
                launcher.dataset(dataset, pattern, limit, min_session_share, annotations)
            except NeuralPileError as error:
                launcher.outcome.failed[dataset.name] = str(error)
        for pile in piles:
            launcher.pile(pile, [dataset.name for dataset in pile.members(chosen)], choices)
        try_to_refresh(instance, settings, rows, all_piles, partial(print, file=sys.stderr))
        return launcher.outcome
