"""Builds: the runs that make datasets and piles, one after the other, for the command line and the named jobs.

What is out of date is decided in `ledger`; a run itself is in `runs`. Printing belongs in `cli`.
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg

from neuralpile_dagster.catalog.load import find_dataset, load_catalog, load_piles
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile, piles_of
from neuralpile_dagster.errors import ConfigurationError, HubError, NeuralPileError
from neuralpile_dagster.hub import open_hub
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.analyses import Analysis, analyses_of
from neuralpile_dagster.ledger.due import analysis_standing, current_sessions, missing_shards, publishable_records
from neuralpile_dagster.ledger.kinds import PILE_KINDS, AssetKind
from neuralpile_dagster.ledger.motif_rows import pile_analyses_of
from neuralpile_dagster.ledger.pile_analyses import ALL, PileAnalysis, planned_pile
from neuralpile_dagster.ledger.splits import require_possible_choices
from neuralpile_dagster.ledger.status import pile_standings
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.assets import job_of_assets
from neuralpile_dagster.orchestration.assets.pile import config_of
from neuralpile_dagster.orchestration.batches.pile import SHARDS_PER_RUN
from neuralpile_dagster.orchestration.checks import refusals, refusals_of_made, waiting_for
from neuralpile_dagster.orchestration.describe import batch_size
from neuralpile_dagster.orchestration.overview import try_to_refresh
from neuralpile_dagster.orchestration.resources import fail_abandoned, open_instance
from neuralpile_dagster.orchestration.runs import Outcome, Runner
from neuralpile_dagster.publish.component import completeness
from neuralpile_dagster.publish.configs import published_sessions
from neuralpile_dagster.recordings.manifest import Manifest, Session
from neuralpile_dagster.settings import ProcessSettings, Settings
from neuralpile_dagster.store import Store, open_store, read_record

IDS_SHOWN = 3
PART_OF = "neuralpile/job"
"""Tag of runs that a named job launches: its name."""


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
    merged = piles_of(all_piles, chosen) if merge else []
    with open_instance(settings) as instance:
        for run_id in fail_abandoned(settings.home, instance):
            print(f"run {run_id} was abandoned (its process has exited) and is now marked as failed", file=sys.stderr)
        launcher = Launcher(settings, instance, job_of_assets(settings, chosen, merged, rows), datasets=rows)
        for pile in merged:
            launcher.require_possible(pile, choices)
        for dataset in chosen:
            try:
                launcher.dataset(dataset, pattern, limit, min_session_share, annotations)
            except NeuralPileError as error:
                launcher.outcome.failed[dataset.name] = str(error)
        for pile in merged:
            launcher.pile(pile, [dataset.name for dataset in pile.members(chosen)], choices)
        try_to_refresh(instance, settings, rows, all_piles, partial(print, file=sys.stderr))
        return launcher.outcome


class Launcher(Runner):
    """Make datasets and piles with a run for each step and batch; ``outcome`` is what came of all of them.

    ``datasets`` are all of the instance: what is made of a pile needs its members.
    """

    def __init__(
        self,
        settings: Settings,
        instance: dg.DagsterInstance,
        job: dg.JobDefinition,
        tags: Mapping[str, str] | None = None,
        datasets: Sequence[Dataset] = (),
    ) -> None:
        super().__init__(instance, job, tags)
        self.settings = settings
        self.datasets = datasets
        self.store: Store = open_store(settings.store)

    def dataset(
        self,
        dataset: Dataset,
        pattern: str | None,
        limit: int | None,
        share: float | None,
        annotations: bool = False,
    ) -> None:
        """Discover, build and publish one dataset; a ``share`` of the sessions is enough, None: all chosen ones.

        Analyses that are made on request are made with ``annotations``, and where the last publication has them:
        sessions that are made again do not lose theirs.

        Raises `ConfigurationError` when no session matches ``pattern``.
        """
        if reason := self.run([names.manifest_key(dataset)]):
            self.fail(names.manifest_key(dataset), reason)
            return
        manifest = documents.read_manifest(self.store, dataset)
        chosen = _choose(manifest, pattern)[:limit]
        wanted = {session.key for session in chosen} - self._finished(dataset, chosen)
        reasons = self._sessions(dataset, wanted)
        failures = documents.read_failures(self.store, dataset, self.settings)
        failed = reasons | {s.key: failures[s.key].message for s in chosen if s.key in failures}
        self.outcome.sessions |= {f"{dataset.name} {key}": reason for key, reason in failed.items()}
        published = documents.read_published(self.store, dataset, self.settings)
        published_with = published is not None and published.annotations is not None
        for analysis in analyses_of(dataset):
            if annotations or published_with or not analysis.on_request:
                self._analyse(dataset, analysis, {session.key for session in chosen})
        hub_dataset = names.hub_dataset_key(dataset)
        left = wanted - failed.keys() - self._finished(dataset, chosen)
        if left and any(failures[key].stopped_batch for key in failed if key in failures):
            self.fail(
                hub_dataset,
                f"not published: {plural(len(left), 'session')} left to do; {documents.STOPPED}; "
                "what to do: run the same command again when the server responds (what is done is kept)",
            )
            return
        partial = pattern is not None or limit is not None
        if failed and (blocked := self._blocked(dataset, len(failed), len(chosen), share)):
            self.fail(hub_dataset, blocked)
            return
        if share is None:
            share = 0.0 if partial else 1.0
        self.publish(dataset, share)

    def publish(self, dataset: Dataset, share: float) -> None:
        """Publish one dataset if this share of its sessions is done; a part never replaces more sessions."""
        hub_dataset = names.hub_dataset_key(dataset)
        if share < 1 and (fewer := self._would_shrink(dataset)):
            self.fail(hub_dataset, fewer)
            return
        config = {f"{dataset.key}__hub_dataset": {"config": {"min_session_share": share}}} if share < 1 else None
        if reason := self.run([hub_dataset], config=config):
            self.fail(hub_dataset, reason)
        else:
            self._report_published(dataset)

    def _blocked(self, dataset: Dataset, failed: int, chosen: int, share: float | None) -> str | None:
        """Reason not to publish without sessions that failed; it does not repeat their reasons."""
        again = "remove the causes and run the same command again (what is done is kept)"
        if share is None:
            return (
                f"not published, because {failed} of {plural(chosen, 'session')} failed; what to do: {again}, or "
                "publish without them: --allow-missing, or --min-session-share SHARE (the card names what is missing)"
            )
        manifest = documents.read_manifest(self.store, dataset)
        records, _ = publishable_records(self.store, dataset, self.settings, manifest)
        present, due, needed = completeness(manifest, records, share)
        if present >= needed:
            return None
        return (
            f"not published, because {present:,} of {due:,} sessions are done; expected: at least {needed:,} "
            f"(a share of {share:g}); what to do: {again}" + (", or lower --min-session-share" if present else "")
        )

    def _would_shrink(self, dataset: Dataset) -> str | None:
        """Reason not to publish a part of a dataset: the repository holds more sessions than are done here."""
        manifest = documents.read_manifest(self.store, dataset)
        records, _ = publishable_records(self.store, dataset, self.settings, manifest)
        name = documents.repository_name(dataset, self.settings)
        held = published_sessions(open_hub(self.settings), name)
        if held <= len(records):
            return None
        return (
            f"not published, because {self.settings.namespace}/{name} holds {plural(held, 'session')} and only "
            f"{len(records):,} are done here; what to do: build all of it (neuralpile build {dataset.name}), or "
            f"materialize {names.hub_dataset_key(dataset).to_user_string()} in the UI with a min_session_share below 1"
        )

    def _finished(self, dataset: Dataset, sessions: Sequence[Session]) -> set[str]:
        """Keys of the sessions that need no run: up to date in the store and materialized in this instance."""
        made = self.instance.get_materialized_partitions(names.spike_counts_key(dataset))
        seen = made - documents.read_failures(self.store, dataset, self.settings).keys()
        return current_sessions(self.store, dataset, self.settings, [s for s in sessions if s.key in seen])

    def _sessions(self, dataset: Dataset, wanted: set[str]) -> dict[str, str]:
        """Make sessions; return reasons of those whose batch failed before recording them.

        A batch that stopped, because its server is away, is the last one: the rest is left to do.
        """
        keys = [names.spike_trains_key(dataset), names.spike_counts_key(dataset)]
        reasons: dict[str, str] = {}
        partitions = names.session_partitions(dataset)
        for batch in names.contiguous_batches(self.instance, partitions, wanted, batch_size(dataset)):
            if reason := self.run(keys, batch):
                failures = documents.read_failures(self.store, dataset, self.settings)
                if any(failures[key].stopped_batch for key in batch if key in failures):
                    break
                manifest = documents.read_manifest(self.store, dataset)
                current = current_sessions(self.store, dataset, self.settings, manifest.sessions)
                reasons |= {key: reason for key in batch if key not in current and key not in failures}
        return reasons

    def _analyse(self, dataset: Dataset, analysis: Analysis, chosen: set[str]) -> None:
        """Make the missing sessions of an analysis; its failures are reported but do not stop publishing."""
        manifest = documents.read_manifest(self.store, dataset)
        standing = analysis_standing(self.store, dataset, self.settings, analysis, manifest)
        wanted = (set(standing.due) | set(standing.failed) | standing.on_request) & chosen
        asset = names.asset_key(dataset, analysis)
        reasons = self.run_batches(asset, names.session_partitions(dataset), wanted, batch_size(dataset))
        self._note_failures(dataset, analysis, reasons, chosen)

    def _note_failures(self, owner: Dataset | Pile, kind: AssetKind, reasons: Sequence[str], among: set[str]) -> None:
        """Record the partitions that failed, or why a run failed before it recorded any; ``reasons`` are of runs."""
        failures = documents.read_failures(self.store, owner, self.settings, kind.name)
        if reasons and not failures:
            self.fail(names.asset_key(owner, kind), reasons[0])
        self.outcome.failed |= {
            f"{owner.name} {kind.name}" + ("" if key == ALL else f" {key}"): failure.message
            for key, failure in failures.items()
            if key in among
        }

    def _report_published(self, dataset: Dataset) -> None:
        published = documents.read_published(self.store, dataset, self.settings)
        if published is not None:
            totals, where = published.totals, self._where(published.repository)
            self.outcome.made.append(
                f"{published.repository}: {plural(totals.sessions, 'session')}, {plural(totals.units, 'unit')}, "
                f"{plural(totals.tokens, 'token')}, {plural(len(published.missing), 'session')} missing; {where}"
            )

    def _where(self, repository: str) -> str:
        """URL or folder of a repository."""
        return f"in {open_hub(self.settings).path(repository.split('/')[-1])}"

    def require_possible(self, pile: Pile, choices: Mapping[str, Any] | None) -> None:
        """Refuse choices that are possible in no pile, before anything is built; see `require_possible_choices`."""
        config = piles.plan_config(self.store, pile, self.settings, (), choices)
        planned = config[piles.manifest_op(pile)]["config"] if config else {}
        require_possible_choices(config_of(pile)(**planned).model_dump(), self.settings)

    def pile(self, pile: Pile, built: Sequence[str] = (), choices: Mapping[str, Any] | None = None) -> None:
        """Plan, make and publish a pile with its last choices, but for these.

        ``built`` are datasets that must be in it.
        """
        manifest, shards, hub_dataset = (names.asset_key(pile, kind) for kind in PILE_KINDS)
        config = piles.plan_config(self.store, pile, self.settings, built, choices or {})
        if refused := refusals(self.instance, "hub_dataset", piles.planned_members(pile, self.datasets, config)):
            self.fail(manifest, waiting_for(refused))
            return
        if reason := self.run([manifest], config=config):
            self.fail(manifest, reason)
            return
        wanted = self._unfinished_shards(pile, shards)
        if reasons := self.run_batches(shards, names.shard_partitions(pile), wanted, SHARDS_PER_RUN):
            self.fail(shards, reasons[0])
            return
        if reason := self.run([hub_dataset]):
            self.fail(hub_dataset, reason)
        else:
            published = piles.require_published(self.store, pile, self.settings)
            self.outcome.made.append(
                f"{published.repository}: {piles.contents(published)}; {self._where(published.repository)}"
            )
            self.made_of(pile)

    def _unfinished_shards(self, pile: Pile, asset: dg.AssetKey) -> set[str]:
        """Names of the shards that need a run: missing in the store, or not materialized in this instance."""
        plan = piles.current_plan(self.store, pile, self.settings)
        if plan is None:
            return set()
        unseen = {shard.name for shard in plan.shards} - self.instance.get_materialized_partitions(asset)
        return unseen | set(missing_shards(self.store, pile, self.settings, plan))

    def made_of(self, pile: Pile) -> None:
        """Make everything that is made of a published pile, in order, and the analyses of sessions that it needs.

        What waits for something that failed is left to do, and what follows one that failed a check.
        """
        rows = pile_analyses_of(pile)
        if not rows or planned_pile(self.store, pile, self.datasets, self.settings) is None:
            return
        if refused := refusals(self.instance, "pile", [pile]):
            self.outcome.failed |= refused
            return
        needed = {name for row in rows for name in row.of_members}
        for dataset in pile.members(self.datasets):
            for analysis in [analysis for analysis in analyses_of(dataset) if analysis.name in needed]:
                manifest = read_record(self.store, documents.manifest_path(dataset), Manifest)
                if manifest is not None:
                    self._analyse(dataset, analysis, {session.key for session in manifest.sessions})
        for row in rows:
            self._make(pile, row)
            if refused := refusals_of_made(self.instance, pile, row):
                self.outcome.failed |= refused
                return  # what follows would be made of it

    def _make(self, pile: Pile, row: PileAnalysis) -> None:
        """Make the missing partitions of something made of a pile; publish what is published, as the pile itself."""
        standings = pile_standings(self.store, pile, self.datasets, self.settings)
        standing = next(standing for standing in standings if standing.analysis.name == row.name)
        asset, wanted = names.asset_key(pile, row), set(standing.due) | set(standing.failed)
        if row.is_published and not standing.waits:
            wanted.add(ALL)
        if standing.waits and not standing.behind:
            self.fail(asset, f"not made: {standing.waits}")
        if (partitions := names.analysis_partitions(pile, row)) is not None:
            reasons = self.run_batches(asset, partitions, wanted, row.per_run)
        else:
            reasons = [reason] if wanted and (reason := self.run([asset])) else []
        self._note_failures(pile, row, reasons, wanted)
        record = read_record(self.store, row.record_key(pile, self.settings, ALL), row.record)
        if record is not None and not (standing.waits or reasons) and (said := row.says(record)):
            self.outcome.made.append(said)


def _choose(manifest: Manifest, pattern: str | None) -> list[Session]:
    """Sessions still listed by the archive whose id or key matches; raises `ConfigurationError` when none does."""
    listed = [session for session in manifest.sessions if not session.vanished]
    if pattern is None:
        return listed
    chosen = [s for s in listed if any(fnmatch.fnmatchcase(text, pattern) for text in (s.session_id, s.key))]
    if not chosen:
        examples = ", ".join(session.session_id for session in listed[:IDS_SHOWN])
        raise ConfigurationError(
            f"no session of {manifest.dataset} matches {pattern!r}",
            found=plural(len(listed), "session") + (f", e.g. {examples}" if examples else ""),
            expected="a glob for the ids of sessions, with * and ?",
            remedy=f"neuralpile sessions {manifest.dataset} lists all of them",
        )
    return chosen
