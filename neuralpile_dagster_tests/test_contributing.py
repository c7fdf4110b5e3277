"""The recipe "an analysis per session" of CONTRIBUTING.md, done as it says: its files, its commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from neuralpile_dagster.ledger.analyses import ENTRY_POINTS, all_analyses, read_analysis
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.code_location import build_definitions
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster_tests.fixtures.documented import ROOT, blocks
from neuralpile_dagster_tests.fixtures.house import MICE, Ran, instance_of, neuralpile, quick_folder, write_mice

RECIPE = "## Recipe 5: an analysis per session"
NAMED_FILE = re.compile(r"^`(?P<path>[^`\s]+)`:\n\n```\w+\n(?P<content>.*?)^```$", re.DOTALL | re.MULTILINE)
DATASET = "steinmetz"
"""The recipe's; the test builds the mice."""


def recipe() -> str:
    """The text of the last recipe."""
    (_, text) = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split(RECIPE)
    return text.split("\n## ")[0]


@dataclass(frozen=True)
class Followed:
    """What somebody has who followed the recipe: a home, and the output of its commands by name."""

    home: Path
    output: dict[str, Ran]

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home, store=str(self.home / "store"))


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    folder = tmp_path_factory.mktemp("recipe")
    installed = folder / "site-packages"
    archive = folder / "archive"
    write_mice(archive)
    files = {found["path"]: found["content"] for found in NAMED_FILE.finditer(recipe())}
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, "utf-8")
    (shell,) = [block.code for block in blocks(recipe(), "") if block.language == "sh"]
    commands = [shlex.split(line, comments=True) for line in shell.replace(DATASET, MICE.name).splitlines()]
    with quick_folder() as home, pytest.MonkeyPatch.context() as patch:
        source = f"{{archive: dandi, id: '{MICE.source.id}', version: draft}}"
        (home / "catalog.yaml").write_text(f"datasets:\n  - {{name: {MICE.name}, title: Mice, source: {source}}}\n")
        output = {}
        for command in commands:
            if command[0] == "neuralpile":
                places = {"NEURALPILE_HOME": home, "NEURALPILE_ARCHIVE": archive}
                output[command[1]] = neuralpile(*command[1:], **places)
            else:
                pip_install(command, folder, installed)
                patch.syspath_prepend(installed)
                all_analyses.cache_clear()
        yield Followed(home, output)
    all_analyses.cache_clear()
    for path in files:
        sys.modules.pop(Path(path).stem, None)


def pip_install(command: list[str], folder: Path, target: Path) -> None:
    """Run the recipe's ``pip install``, but into a folder of its own and without an index."""
    assert command[:4] == ["python", "-m", "pip", "install"], command
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    done = subprocess.run([sys.executable, *command[1:], *offline], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_is_found(followed: Followed) -> None:
    assert [point.name for point in entry_points(group=ENTRY_POINTS)] == ["active_units"]


def test_every_dataset_has_the_asset(followed: Followed) -> None:
    graph = build_definitions(followed.settings, [MICE]).resolve_asset_graph()
    row = next(row for row in all_analyses() if row.name == "active_units")
    node = graph.get(names.asset_key(MICE, row))
    assert node.parent_keys == {names.spike_counts_key(MICE)}
    assert node.partitions_def is not None


def test_the_asset_is_built_and_its_record_is_in_the_store(followed: Followed) -> None:
    assert followed.output["build"].code == 0, followed.output["build"].err
    row = next(row for row in all_analyses() if row.name == "active_units")
    with instance_of(followed.home) as instance:
        (key,) = instance.get_materialized_partitions(names.asset_key(MICE, row))
    record = read_analysis(LocalStore(followed.home / "store"), MICE, followed.settings, row, key)
    assert record is not None
    numbers = dict(row.numbers(record))
    assert 0 < numbers["active units"] < numbers["units"], "the last unit of the mice is silent"


def test_status_has_the_line_that_the_recipe_shows(followed: Followed) -> None:
    (line,) = re.findall(rf"# ({DATASET} active_units: .*?) \.\.\.", recipe())
    assert line.replace(DATASET, MICE.name) in followed.output["status"].out
