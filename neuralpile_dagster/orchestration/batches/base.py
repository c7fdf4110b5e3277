"""The partitions of one run, made one after the other; a failed partition does not stop the others.

A step that raises records nothing, and its retry repeats the whole batch; so every partition's results are logged as
events at once, transient errors are retried per partition, and the batch fails once, at its end. A batch whose server
is away stops early and leaves the rest to do. What a partition is and how one is made belongs in a subclass
(`sessions`, `pile`); what is due belongs in `ledger`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import dagster as dg
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.errors import NeuralPileError, TransientError
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.orchestration.metadata import counted
from neuralpile_dagster.orchestration.progress import Context, forward_wait_warnings, log_error, terminal_log
from neuralpile_dagster.orchestration.resources import InstanceResource

ATTEMPTS = 4
"""Attempts per partition when an archive, a store or a hub is unavailable; their clients retry single requests too."""
STOP_AFTER = 3
"""Partitions in a row that fail with transient errors: then the server is away, and each further one costs minutes."""
REASONS_SHOWN = 3
"""Number of failed partitions listed in the message of a failed batch; the run's log has all of them."""
DATA_VERSION = "dagster/data_version"
"""Tag of a materialization."""


@dataclass
class PartitionBatch(ABC):
    """The partitions of one run; a subclass says only how to make one of them.

    Parameters
    ----------
    context : dagster.AssetExecutionContext or dagster.OpExecutionContext
        Of the run; its partition keys are those to make.
    instance : InstanceResource
        Settings, store, archives and hub.
    chosen : sequence of str, optional
        The partitions to make, for a run that has none of its own.
    """

    context: Context
    instance: InstanceResource
    chosen: Sequence[str] | None = field(default=None, kw_only=True)
    failed: dict[str, str] = field(default_factory=dict, init=False)
    stopped: bool = field(default=False, init=False)
    results: list[dg.MaterializeResult] = field(default_factory=list, init=False)
    """For the asset's function to give to Dagster: of the part without partition, whose checks run after its output."""
    thing: ClassVar[str]
    """One partition, in words: ``session``, ``shard``."""

    def __post_init__(self) -> None:
        self.log = terminal_log(self.context)
        self.settings = self.instance.settings
        self.store = self.instance.open_store()
        self._made: set[tuple[dg.AssetKey, str]] = set()

    @property
    def assets(self) -> Sequence[dg.AssetKey]:
        """The assets that the run makes of each partition, upstream first: a failure is told on their pages."""
        return ()

    @abstractmethod
    def make(self, key: str) -> None:
        """Make one partition and log its materialization; idempotent."""

    @property
    @abstractmethod
    def whole(self) -> str:
        """The whole that the partitions are part of, in words: a dataset's name, ``the pile``."""

    def keys(self) -> Sequence[str]:
        """The partitions to make."""
        return self.context.partition_keys if self.chosen is None else self.chosen

    def label(self, key: str) -> str:
        """Name of a partition in log lines."""
        return f"{self.whole} {key}"

    def partition_of(self, key: str) -> str | None:
        """Dagster's partition of a key; None in a batch of the one part of an asset without partitions."""
        return key

    def record_failure(self, key: str, error: Exception) -> None:  # noqa: B027 - a hook, optional
        """Store the reason of a failure, and whether it ``stopped`` the batch.

        Raises `NeuralPileError` when that fails too.
        """

    def store_failure(self, owner: Dataset | Pile, key: str, error: Exception, inputs: str, analysis: str = "") -> None:
        """Store the reason of a failure, for `neuralpile status` and automation; ``analysis`` is a kind of asset."""
        run_id = self.context.run.run_id
        documents.record_failure(
            self.store, owner, self.settings, key, error, inputs, run_id, analysis, stopped_batch=self.stopped
        )

    def finish(self, made: int) -> None:  # noqa: B027 - a hook, optional
        """Called once after all ``made`` partitions were attempted, before the batch fails."""

    def run(self) -> None:
        """Make every partition; raises `dagster.Failure` at the end when any of them failed.

        After `STOP_AFTER` transient errors in a row the rest is left to do, which is not a failure.
        """
        with forward_wait_warnings(self.context, self.whole):
            keys = self.keys()
        number, in_a_row = 0, 0
        for number, key in enumerate(keys, 1):
            try:
                with forward_wait_warnings(self.context, self.label(key)):
                    self._make_with_retries(key)
            except Exception as error:  # noqa: BLE001 - recorded and raised again, as one Failure, after the others
                in_a_row = in_a_row + 1 if isinstance(error, TransientError) else 0
                self.stopped = in_a_row == STOP_AFTER
                self._fail(key, error)
            else:
                in_a_row = 0
            self.log.info(f"{self.whole}: {number} of {plural(len(keys), self.thing)} of this batch, {key}")
            if self.stopped:
                break
        self.finish(number)
        if self.failed:
            raise batch_failure(self.thing, self.failed, len(keys), len(keys) - number, of=f" of {self.whole}")

    def _make_with_retries(self, key: str) -> None:
        def log_wait(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            seconds = state.next_action.sleep if state.next_action else 0
            following = f"attempt {state.attempt_number + 1} of {ATTEMPTS}"
            self.log.warning(f"{self.label(key)}: {error} Trying again in {seconds:.0f} s ({following}).")

        for attempt in Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential_jitter(multiplier=2, max=60),
            before_sleep=log_wait,
            reraise=True,
        ):
            with attempt:
                self.make(key)

    def _fail(self, key: str, error: Exception) -> None:
        self.failed[key] = log_failure(error, self.label(key), self.log)
        try:
            self.record_failure(key, error)
        except NeuralPileError as another:  # the batch continues, and fails at its end
            self.failed[key] += f" (which could not be stored: {another})"
        for asset in [asset for asset in self.assets if (asset, key) not in self._made] or self.assets[-1:]:
            self.context.log_event(
                dg.AssetObservation(
                    asset, partition=self.partition_of(key), description="failed", metadata=failure_metadata(error)
                )
            )

    def log_materialization(
        self, asset: dg.AssetKey, partition: str, metadata: Mapping[str, Any], tags: Mapping[str, str]
    ) -> None:
        """Log a partition's materialization at once, so that a later failure cannot undo it."""
        self._made.add((asset, partition))
        self.context.log_event(
            dg.AssetMaterialization(
                asset, partition=self.partition_of(partition), metadata=dict(metadata), tags=dict(tags)
            )
        )


def version_tags(
    data_version: str,
    code_version: str,
    source: dg.AssetKey,
    source_version: str,
    source_event: dg.EventLogRecord | None = None,
) -> dict[str, str]:
    """Tags of a logged materialization: its versions and inputs, without which the UI shows it as "unsynced".

    Dagster adds them itself only to returned results. ``source_event`` is the source's materialization;
    Dagster asks for it of partitioned sources only.
    """
    name = source.to_user_string()
    return {
        DATA_VERSION: data_version,
        "dagster/code_version": code_version,
        f"dagster/input_data_version/{name}": source_version,
        f"dagster/input_event_pointer/{name}": "NULL" if source_event is None else str(source_event.storage_id),
    }


def failure_metadata(error: Exception) -> dict[str, str]:
    """Why a partition failed, for its page."""
    if not isinstance(error, NeuralPileError):
        return {"failed": f"{type(error).__name__}: {error}", "what_to_do": "read the trace in the log of the run"}
    parts = {"failed": error.what, "found": error.found, "expected": error.expected, "what_to_do": error.remedy}
    return {name: part for name, part in parts.items() if part}


def log_failure(error: Exception, what: str, log: logging.LoggerAdapter[Any]) -> str:
    """Log why an item failed (with a traceback for unexpected errors) and return the reason."""
    unexpected = None if isinstance(error, NeuralPileError) else error
    log_error(log, f"{what} failed: {error}", brief=f"{what} failed", error=unexpected)
    return str(error) or type(error).__name__


def batch_failure(one: str, failed: Mapping[str, str], wanted: int, left: int = 0, of: str = "") -> dg.Failure:
    """Failure of a batch of ``wanted`` items, each called ``one``, ``of`` something; ``failed`` maps them to reasons.

    ``left`` items were not attempted, because the server was away.
    """
    reasons = [f"{key}: {reason}" for key, reason in failed.items()]
    more = len(reasons) - REASONS_SHOWN
    return dg.Failure(
        f"{len(reasons)} of {plural(wanted, one)}{of} failed"
        + ("; the others are done" if len(reasons) + left < wanted else "")
        + (
            f". {left} are left to do: the batch stopped, because {STOP_AFTER} in a row failed with transient errors; "
            "run them again when the server responds. "
            if left
            else ". "
        )
        + " | ".join(reasons[:REASONS_SHOWN])
        + (f" | and {more} more, in the run's log" if more > 0 else ""),
        metadata={"failed_partitions": dg.MetadataValue.md(counted(failed)), "left_to_do": left},
        allow_retries=False,
    )
