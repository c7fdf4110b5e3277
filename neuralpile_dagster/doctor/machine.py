"""Probes of the machine: versions of packages, their imports, the home, the store, and a cluster's Postgres and broker.

Postgres and the broker are tried where the home's ``dagster.yaml`` (or a worker's environment) names them. Servers of
others, archives and the hub, belong in `remote`.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from neuralpile_dagster.doctor.probes import LIMITS, Finding, failed, not_needed, ok, warning
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.files import explained, free_bytes
from neuralpile_dagster.settings import Settings

_PACKAGE = "neuralpile-dagster"
_SHOWN = ("dagster", "dandi", "h5py", "huggingface_hub", "numpy", "pyarrow", "pynwb")
"""Packages whose versions are always shown, for bug reports."""
_IMPORTED = ("boto3.session", "dandi.dandiapi", "h5py", "huggingface_hub", "numpy", "pyarrow.parquet")
"""Binary or slow packages that other probes and builds import."""
_LITTLE_BYTES = 2_000_000_000
"""Free disk below which a dataset of medium size (8 G tokens) may not fit."""
_TIMEOUT_S = 5
_STORAGES = ("storage", "run_storage", "event_log_storage", "schedule_storage")
_BROKER = "DAGSTER_CELERY_BROKER_URL"
_EXTRA = "install neuralpile-dagster with its extra [cluster] (deploy/README.md)"


def versions() -> Finding:
    """Compare installed packages with the bounds in the package's own metadata."""
    wrong, seen = [], {}
    for requirement in _requirements():
        try:
            seen[requirement.name] = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement} (not installed)")
            continue
        if not requirement.specifier.contains(seen[requirement.name], prereleases=True):
            wrong.append(f"{requirement} ({seen[requirement.name]} is installed)")
    python = metadata(_PACKAGE)["Requires-Python"]
    if python and not SpecifierSet(python).contains(platform.python_version(), prereleases=True):
        wrong.append(f"python{python} ({platform.python_version()} is running)")
    if wrong:
        return failed(
            f"{_PACKAGE} {version(_PACKAGE)} needs {', '.join(wrong)}",
            "install it again as the README says, in an environment of its own",
        )
    named = ", ".join(f"{name} {seen[name]}" for name in _SHOWN if name in seen)
    return ok(
        f"{_PACKAGE} {version(_PACKAGE)} on python {platform.python_version()}: {named}; "
        f"all {len(seen)} packages are within their bounds"
    )


def _requirements() -> list[Requirement]:
    """Requirements of the package without extras."""
    found = (Requirement(text) for text in requires(_PACKAGE) or ())
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]


def plugins() -> Finding:
    """Load the readers and analyses that other packages add; a broken one stops every build."""
    from neuralpile_dagster.catalog import readers
    from neuralpile_dagster.ledger import analyses

    added = {
        "readers": [name for name in readers.all_readers() if name not in readers.BUILT_IN],
        "analyses": [row.name for row in analyses.all_analyses() if row not in analyses.BUILT_IN],
    }
    named = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in added.items() if names)
    return ok(named) if named else not_needed("no other package adds readers or analyses")


def imports() -> Finding:
    """Import slow or possibly broken packages, so that later probes wait for servers only."""
    began = time.monotonic()
    for name in _IMPORTED:
        try:
            import_module(name)
        except ImportError as error:
            return failed(
                f"{name} cannot be imported: {error}",
                f"install it again: {sys.executable} -m pip install --force-reinstall {name.partition('.')[0]}",
            )
    return ok(f"{len(_IMPORTED)} packages imported in {time.monotonic() - began:.1f} s")


def home(settings: Settings) -> Finding:
    """Check that the home is writable, and its free space."""
    return _folder(settings.home, "NEURALPILE_HOME")


def store(settings: Settings) -> Finding:
    """Check the store's folder like the home; on S3 list it, which needs the bucket and the credentials."""
    from neuralpile_dagster.store import LocalStore, open_store

    opened = open_store(settings.store)
    if isinstance(opened, LocalStore):
        return _folder(opened.root, "NEURALPILE_STORE")
    from neuralpile_dagster.store.s3 import open_s3_store

    on_s3 = open_s3_store(settings.store, LIMITS)
    some = next(on_s3.keys("neural_pile"), None)
    contents = "no pile yet" if some is None else "a pile"
    return ok(f"{settings.store} can be listed ({contents}); writing was not tried")


def _folder(folder: Path, variable: str) -> Finding:
    """Check that an unnamed file can be written where ``folder`` is, or would be made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    with explained(folder), tempfile.TemporaryFile(dir=there) as file:
        file.write(b"0")
        file.flush()
    free = free_bytes(there)
    found = f"{folder} is writable{'' if there == folder else ' (not made yet)'}, {free / 1e9:,.1f} GB free"
    if free < _LITTLE_BYTES:
        return warning(found, f"free some space, or set {variable} to a larger disk")
    return ok(found)


def postgres(settings: Settings) -> Finding:
    """Connect to the database that Dagster keeps runs and events in."""
    config = _postgres_config(_instance_file(settings.home / "dagster.yaml"))
    if config is None:
        return not_needed("Dagster's runs and events are in SQLite in the home")
    try:
        import psycopg2
    except ImportError:
        return failed("psycopg2 is not installed", _EXTRA)
    arguments = _connection_arguments(config)
    where = f"{arguments.get('host')}:{arguments.get('port')}/{arguments.get('dbname')}"
    try:
        connection = psycopg2.connect(**{**arguments, "connect_timeout": _TIMEOUT_S})
    except psycopg2.Error as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        password = str(arguments.get("password") or "")
        return failed(
            f"{where} cannot be reached: {reason.replace(password, '***') if password else reason}",
            "start Postgres, and check the DAGSTER_PG_* variables that dagster.yaml names",
        )
    try:
        major = connection.server_version // 10_000
    finally:
        connection.close()
    return ok(f"{where}: Postgres {major}")


def broker(settings: Settings) -> Finding:
    """Ping the broker of Celery's workers."""
    launcher = _instance_file(settings.home / "dagster.yaml").get("run_launcher")
    config = launcher.get("config") if isinstance(launcher, dict) else None
    configured = config.get("broker") if isinstance(config, dict) else None
    value = os.environ.get(_BROKER) if configured is None else _value(configured)
    if value is None:
        return not_needed("runs are processes of this machine")
    url = str(value)
    if url.partition("://")[0] not in ("redis", "rediss"):
        return warning("the broker is not Redis: not tried", "deploy/README.md: only Redis was tested")
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        return failed("redis is not installed", _EXTRA)
    once = {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S, "retry": Retry(NoBackoff(), 0)}
    try:
        client = redis.Redis.from_url(url, **once)
    except ValueError:  # whose text repeats parts of the URL
        return failed("the broker's URL is invalid", f"set {_BROKER} to redis://:password@host:6379/0")
    place = client.get_connection_kwargs()
    where = f"Redis at {place.get('host')}:{place.get('port', 6379)}"
    try:
        with client:
            client.ping()
    except redis.RedisError as error:
        return failed(f"{where} does not respond: {error}", f"start Redis, and check {_BROKER}")
    return ok(f"{where} responds")


def _instance_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)  # YAML's own text repeats the line, which may hold a password
        found = f"no YAML in line {mark.line + 1}" if mark else type(error).__name__
        raise ConfigurationError(
            f"{path} cannot be read", found=found, remedy="correct it, or remove it: it is then made again"
        ) from None
    return content if isinstance(content, dict) else {}


def _postgres_config(instance: dict[str, Any]) -> dict[str, Any] | None:
    """The first ``postgres_db`` or ``postgres_url``; all storages of an instance are usually one database."""
    for name in _STORAGES:
        section = instance.get(name)
        if isinstance(section, dict):
            for config in (section.get("config"), section.get("postgres")):
                if isinstance(config, dict) and ("postgres_db" in config or "postgres_url" in config):
                    return config
    return None


def _connection_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """As psycopg2 takes them; raises `ConfigurationError` when the URL is invalid."""
    if "postgres_url" in config:
        import psycopg2.extensions

        scheme, _, rest = str(_value(config["postgres_url"])).partition("://")
        invalid = ConfigurationError(  # the URL is not repeated, not even in parts: it holds a password
            "postgres_url in dagster.yaml is invalid",
            expected="postgresql://user:password@host:5432/database, with / and @ in the password as %2F and %40",
        )
        try:
            parsed = {"port": 5432, **psycopg2.extensions.parse_dsn(f"{scheme.partition('+')[0]}://{rest}")}
        except psycopg2.ProgrammingError:
            raise invalid from None
        if not str(parsed["port"]).isdigit() or any("@" in str(parsed.get(name)) for name in ("host", "dbname")):
            raise invalid
        return parsed
    database = {name: _value(value) for name, value in config["postgres_db"].items() if name != "params"}
    return {
        "host": database.get("hostname"),
        "port": database.get("port", 5432),
        "user": database.get("username"),
        "password": database.get("password"),
        "dbname": database.get("db_name"),
    }


def _value(configured: Any) -> Any:
    """A value of ``dagster.yaml``, which may name a variable; raises `ConfigurationError` when that is not set."""
    if not isinstance(configured, dict):
        return configured
    name = str(configured.get("env"))
    if not os.environ.get(name):
        raise ConfigurationError(
            f"{name} is not set",
            expected="the variable that dagster.yaml names",
            remedy="set it as for the daemon and the workers, e.g. `set -a; . cluster.env; set +a`",
        )
    return os.environ[name]
