"""A Postgres server for tests, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from neuralpile_dagster_tests.servers.cluster import free_port


class Postgres:
    """A database server that anybody on this machine may log in to as ``tester``."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("pg_ctl") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")))
        self.programs, self.data = Path(found).resolve().parent, folder / "data"
        self.port = free_port()
        self.options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self.url = f"postgresql+psycopg2://tester@127.0.0.1:{self.port}/postgres"
        self._run("initdb", "--pgdata", self.data, "--username", "tester", "--auth", "trust", "--encoding", "UTF8")

    def _run(self, program: str, *arguments: str | Path) -> None:
        # Postgres refuses to run as root
        user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if not os.geteuid() else []
        subprocess.run([*user, self.programs / program, *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        self._run("pg_ctl", "start", "-w", "-D", self.data, "-o", self.options, "-l", self.data / "log")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", self.data)

    def sessions(self) -> int:
        """How often somebody connected to the database so far; this question is one more."""
        with psycopg2.connect(self.url.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
            cursor.execute(
                "select pg_stat_force_next_flush(), sessions from pg_stat_database where datname = 'postgres'"
            )
            row = cursor.fetchone()
        assert row is not None
        return int(row[1])


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A running server, empty; `deploy.cluster.missing_programs` says whether this machine has Postgres."""
    with tempfile.TemporaryDirectory() as name:  # not below pytest's own, which only this user may enter
        folder = Path(name)
        if not os.geteuid():
            shutil.chown(folder, "postgres")
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
