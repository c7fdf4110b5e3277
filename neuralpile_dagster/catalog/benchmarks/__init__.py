"""Public lists of sessions that models are evaluated or pretrained on, as facts: one YAML file in this folder for each.

A user's own are in ``benchmarks/`` of ``NEURALPILE_HOME``, in the form of `Benchmark`. What is held out for them
belongs in `ledger.splits`.
"""

from __future__ import annotations

import re
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, HttpUrl, ValidationError, model_validator

from neuralpile_dagster.catalog.load import problem_of, read_yaml
from neuralpile_dagster.catalog.model import FILE_STEM, PathPattern, Row, Text, Title
from neuralpile_dagster.errors import CatalogError
from neuralpile_dagster.settings import Settings

USER_LISTS = "benchmarks"


class Benchmark(Row):
    """One public list of sessions.

    Without ``ids`` and ``patterns`` it holds all sessions of its ``datasets``, unless ``not_included`` says where
    its ids are to be had. ``id`` is a regular expression searched in the session id whose group is one of ``ids``;
    ``patterns`` are searched in ``<subject_id>/<session_id>``.
    """

    name: str = Field(pattern=FILE_STEM, max_length=60)
    title: Title
    url: HttpUrl
    license: Title | None = None
    kind: Literal["eval", "pretrain"]
    datasets: tuple[Title, ...] = Field(min_length=1)
    id: PathPattern | None = None
    ids: tuple[Title, ...] = ()
    patterns: tuple[PathPattern, ...] = ()
    not_included: Text = ""

    @model_validator(mode="after")
    def _ids_have_a_pattern(self) -> Benchmark:
        if self.ids and (self.id is None or re.compile(self.id).groups != 1):
            raise ValueError("ids needs id: a regular expression with one (group), searched in the session id")
        return self

    @cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(self.ids)

    def holds(self, dataset: str, subject_id: str, session_id: str) -> bool:
        """Whether a session is in the list; ``dataset`` is its name in the catalog."""
        if dataset not in self.datasets or (self.not_included and not self.ids):
            return False
        if self.ids:
            found = re.search(self.id or "", session_id)
            return found is not None and found[1] in self._ids
        path = f"{subject_id}/{session_id}"
        return not self.patterns or any(re.search(pattern, path) for pattern in self.patterns)


def load_benchmarks(settings: Settings) -> dict[str, Benchmark]:
    """All lists by name, the package's and the user's; a user's list replaces one of the same name.

    Raises `CatalogError`, naming the file, when one is invalid.
    """
    users = settings.home / USER_LISTS
    return {**_package_lists(), **(_read_all(users) if users.is_dir() else {})}


@cache
def _package_lists() -> dict[str, Benchmark]:
    return _read_all(Path(__file__).parent)


def _read_all(folder: Path) -> dict[str, Benchmark]:
    return {path.stem: _read(path) for path in sorted(folder.glob("*.yaml"))}


def _read(path: Path) -> Benchmark:
    content: Any = read_yaml(path)
    if not isinstance(content, dict):
        raise CatalogError(f"{path} is not a list of sessions", expected="a mapping with title, url, kind, datasets")
    try:
        return Benchmark.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        raise problem_of(path, "", error.errors()[0], Benchmark) from error
