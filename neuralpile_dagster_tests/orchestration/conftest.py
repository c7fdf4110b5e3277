"""Fixtures of the orchestration's tests: real instances, real files, real runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from neuralpile_dagster_tests.fixtures.house import House, copy_of, house, write_mice
from neuralpile_dagster_tests.fixtures.kept import kept


@pytest.fixture(scope="session")
def mice_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The sessions of `house.MICE` as bytes by path, written once."""
    folder = tmp_path_factory.mktemp("mice")
    root = folder / write_mice(folder)[0].relative_to(folder).parts[0]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.nwb"))}


@pytest.fixture(scope="session")
def new_archive(mice_files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes folder archives with the mice, each its own to damage."""

    def make() -> Path:
        archive = tmp_path_factory.mktemp("archive")
        for path, content in mice_files.items():
            (archive / path).parent.mkdir(parents=True, exist_ok=True)
            (archive / path).write_bytes(content)
        return archive

    return make


@pytest.fixture
def new_house(tmp_path: Path, new_archive: Callable[[], Path]) -> Iterator[Callable[..., House]]:
    """Opens instances with the mice; keywords are those of `house.house`."""
    with ExitStack() as stack:

        def make(**changes: Any) -> House:
            number = len(list(tmp_path.glob("home*")))
            archive = changes.pop("archive", None) or new_archive()
            return stack.enter_context(house(tmp_path / f"home{number}", archive, **changes))

        yield make


@pytest.fixture(scope="session")
def first_built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """An instance on which the mice are built and published, for others to begin with; nobody changes it."""
    with kept("built", tmp_path_factory.mktemp("built") / "home") as made:
        yield made


@pytest.fixture
def built_house(tmp_path: Path, first_built: House) -> Iterator[Callable[..., House]]:
    """Opens instances on which the mice are built and published; keywords are those of `house.house`."""
    with ExitStack() as stack:

        def make(**settings: Any) -> House:
            number = len(list(tmp_path.glob("built*")))
            return stack.enter_context(copy_of(first_built, tmp_path / f"built{number}", **settings))

        yield make


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, first_built: House) -> Iterator[House]:
    """An instance on which the mice are built and published; tests of a file share it and only look."""
    with copy_of(first_built, tmp_path_factory.mktemp("built") / "copy") as made:
        yield made


@pytest.fixture
def listed_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Opens instances on which only the manifest of the mice is made; keywords are those of `house.house`."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(kept("listed", _new_folder(tmp_path, "listed"), **settings))


@pytest.fixture
def broken_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Opens instances on which the middle session of the mice failed, its file being truncated; keywords as before."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(kept("broken", _new_folder(tmp_path, "broken"), **settings))


def _new_folder(folder: Path, name: str) -> Path:
    return folder / f"{name}{len(list(folder.glob(f'{name}*')))}"
