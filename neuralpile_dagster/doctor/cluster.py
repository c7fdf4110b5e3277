"""Probes of Postgres and the broker, where the home's ``dagster.yaml`` (or a worker's environment) names them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from neuralpile_dagster.doctor.model import Finding, failed, not_needed, ok, warning
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.settings import Settings

TIMEOUT_S = 5
_STORAGES = ("storage", "run_storage", "event_log_storage", "schedule_storage")
_BROKER = "DAGSTER_CELERY_BROKER_URL"
_EXTRA = "install neuralpile-dagster with its extra [cluster] (deploy/README.md)"


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
        connection = psycopg2.connect(**{**arguments, "connect_timeout": TIMEOUT_S})
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
    once = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, "retry": Retry(NoBackoff(), 0)}
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
    return next(_postgres_configs(instance), None)


def _postgres_configs(instance: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in _STORAGES:
        section = instance.get(name)
        if isinstance(section, dict):
            for config in (section.get("config"), section.get("postgres")):
                if isinstance(config, dict) and ("postgres_db" in config or "postgres_url" in config):
                    yield config


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
