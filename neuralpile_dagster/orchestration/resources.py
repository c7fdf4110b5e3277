"""Dagster resources: configured ways to the store, the archives and the hub.

They hold locations only. Secrets (HF_TOKEN, DANDI_API_KEY, AWS keys) are read
from the environment by the client at the moment of use and are never part of a
resource's configuration.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from neuralpile_dagster.orchestration.home import going_on
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store, open_store

if TYPE_CHECKING:
    from neuralpile_dagster.archives.model import Archive
    from neuralpile_dagster.catalog.model import Source
    from neuralpile_dagster.hub.model import LoadableHub
    from neuralpile_dagster.net.retry import RetryPolicy


class InstanceResource(dg.ConfigurableResource):
    """The instance's settings (`neuralpile_dagster.settings.Settings`), and the places they name."""

    home: str
    store_location: str
    archive: str
    hub: str
    namespace: str
    bin_width_s: float
    max_tokens: int
    min_session_share: float = 1.0

    @classmethod
    def from_settings(cls, settings: Settings) -> InstanceResource:
        """The resource of an instance."""
        return cls(
            home=str(settings.home),
            store_location=settings.store,
            archive=settings.archive,
            hub=settings.hub,
            namespace=settings.namespace,
            bin_width_s=settings.bin_width_s,
            max_tokens=settings.max_tokens,
            min_session_share=settings.min_session_share,
        )

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[InstanceResource]:
        """Serve a run, which is known to go on as long as its process does."""
        with going_on(Path(self.home), context.run.run_id) if context.run else nullcontext():
            yield self

    @property
    def settings(self) -> Settings:
        """The settings as the pure rooms take them."""
        return Settings(
            home=Path(self.home),
            store=self.store_location,
            archive=self.archive,
            hub=self.hub,
            namespace=self.namespace,
            bin_width_s=self.bin_width_s,
            max_tokens=self.max_tokens,
            min_session_share=self.min_session_share,
        )

    def open_store(self) -> Store:
        """The store of intermediate results."""
        return open_store(self.store_location)

    def open_archive(self, source: Source, limits: RetryPolicy | None = None) -> Archive:
        """The archive that serves a source."""
        from neuralpile_dagster.archives import open_archive

        return open_archive(self.settings, source, limits)

    def open_hub(self) -> LoadableHub:
        """The hub to publish to."""
        from neuralpile_dagster.hub import open_hub

        return open_hub(self.settings)
