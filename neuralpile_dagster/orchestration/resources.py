"""The instance as Dagster's resource: its settings, and the places that they name.

It takes no run configuration: settings come from the environment of the process alone, so no run can be launched with
others than its neighbors'. Secrets (HF_TOKEN, DANDI_API_KEY, AWS keys) are read by the clients when they need them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from neuralpile_dagster.orchestration.home import hold_run_lock
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, open_store

if TYPE_CHECKING:
    from neuralpile_dagster.archives.model import Archive
    from neuralpile_dagster.catalog.model import Source
    from neuralpile_dagster.hub.model import LoadableHub
    from neuralpile_dagster.net.retry import RetryPolicy


@dataclass(frozen=True)
class InstanceResource:
    """What assets, checks and sensors are given as ``instance``."""

    settings: Settings

    @classmethod
    def from_settings(cls, settings: Settings) -> InstanceResource:
        """The resource of an instance."""
        return cls(settings)

    def open_store(self) -> Store:
        """The store of intermediate results."""
        return open_store(self.settings.store)

    def open_archive(self, source: Source, limits: RetryPolicy | None = None) -> Archive:
        """The archive that serves a source."""
        from neuralpile_dagster.archives import open_archive

        return open_archive(self.settings, source, limits)

    def open_hub(self) -> LoadableHub:
        """The hub to publish to."""
        from neuralpile_dagster.hub import open_hub

        return open_hub(self.settings)

    def definition(self) -> dg.ResourceDefinition:
        """The resource as `dagster.Definitions` take it."""

        def serve(context: dg.InitResourceContext) -> Iterator[InstanceResource]:
            """Serve a run, which is known to go on as long as its process does."""
            with hold_run_lock(self.settings.home, context.run.run_id) if context.run else nullcontext():
                yield self

        return dg.ResourceDefinition(
            serve,
            config_schema={},  # nothing; without a schema Dagster takes anything
            description="Settings, store, archives and hub of this instance, from its environment.",
        )


Instance = dg.ResourceParam[InstanceResource]
"""The annotation of the parameter ``instance``."""
