"""Dagster's event log in Postgres, over connections that stay open: deploy/*/dagster.yaml name this class.

Dagster's own connects and authenticates again for each of the ~25 reads and writes that a session costs: a
fifth of the time of two workers that share a machine with their database (docs/performance.md). For its web server,
which asks as often, Dagster keeps connections too. The tables are the same: an instance may change between both
classes at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.utils import create_pg_engine, get_token_provider_from_config, pg_url_from_config

from neuralpile_dagster.orchestration.private_dagster import ConfigurableClassData

OPEN_S = 600
"""Maximum age of a connection: proxies before databases close older ones."""
SPARE = 30
"""Additional connections while several threads query at once; Dagster's web server has 20."""


class OpenPostgresEventLogStorage(PostgresEventLogStorage):
    """`PostgresEventLogStorage` that keeps a connection open and tests it before each use.

    Connecting is retried as Dagster does while the database is unavailable; a broken connection is replaced.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._engine = create_pg_engine(
            self.postgres_url,
            self._token_provider,
            isolation_level="AUTOCOMMIT",  # as in Dagster's own
            pool_size=1,
            max_overflow=SPARE,
            pool_recycle=OPEN_S,
            pool_pre_ping=True,
        )

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> OpenPostgresEventLogStorage:
        """Make the storage of an instance; called by Dagster, whose own method would return its own class."""
        return cls(
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
            token_provider=get_token_provider_from_config(config_value),
        )

    def dispose(self) -> None:
        """Close the connections."""
        super().dispose()
        self._engine.dispose()
