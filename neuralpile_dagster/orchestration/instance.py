"""The Dagster instance in ``NEURALPILE_HOME``, shared by the command line, the web server and the daemon."""

from __future__ import annotations

import os
from importlib import resources

import dagster as dg

from neuralpile_dagster.files import write_bytes
from neuralpile_dagster.orchestration.pools import limit_pools
from neuralpile_dagster.settings import Settings


def prepare_home(settings: Settings) -> None:
    """Make the home folder with its ``dagster.yaml`` (kept when there is one) and point ``DAGSTER_HOME`` at it."""
    target = settings.home / "dagster.yaml"
    if not target.exists():
        write_bytes(target, resources.files(__package__).joinpath("dagster.yaml").read_bytes())
    os.environ["DAGSTER_HOME"] = str(settings.home)


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """The instance, for use in a ``with``."""
    prepare_home(settings)
    instance = dg.DagsterInstance.from_config(str(settings.home))
    limit_pools(instance)
    return instance
