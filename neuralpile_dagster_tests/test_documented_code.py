"""Every Python block of the documentation and of the cards runs as it stands, gives what it says, and ends.

Each runs in a process of its own: that a script prints is no proof that it exits.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from neuralpile_dagster.hub.huggingface import HuggingFaceHub
from neuralpile_dagster.tables.rows import Row, RowReader, RowWriter
from neuralpile_dagster_tests.fixtures.documented import Block, at, documented_blocks, reading_code, run
from neuralpile_dagster_tests.fixtures.house import quick_folder
from neuralpile_dagster_tests.fixtures.huggingface import QUICK, quiet
from neuralpile_dagster_tests.fixtures.once import demo, put_sample
from neuralpile_dagster_tests.fixtures.piles import Pile
from neuralpile_dagster_tests.servers.hf_hub import HubServer

pytestmark = pytest.mark.slow_first
DOCUMENTED = documented_blocks("python", "py")
TRAINING, README = [block.code for block in DOCUMENTED if block.place.startswith("README.md")]
DEMO_HOME = ".neuralpile-demo"  # README: where `make demo` builds
PROOF = """
assert np.shares_memory(counts, row["spike_counts"].values.values.to_numpy()), "the counts are a copy"
np.save("counts.npy", counts)
"""
NO_READER_LEFT = """
import os, threading, time
for attempt in range(50):  # Python's own threads take a moment to end
    python = {thread.native_id for thread in threading.enumerate()}
    names = []
    for task in os.listdir("/proc/self/task"):
        try:
            names += [] if int(task) in python else [open(f"/proc/self/task/{task}/comm").read().strip()]
        except OSError:
            pass  # it has ended
    left = [name for name in names if "jemalloc" not in name]
    if len(left) <= 1:  # the one of the CPU pool, which reads no file
        break
    time.sleep(0.1)
else:
    raise AssertionError(names)
"""
"""A thread that still holds a file while Python exits aborts the process, once in 50 runs on a busy machine."""

Script = Callable[[str], tuple[int, str, str]]
"""Exit code, output and errors of a script."""


@dataclass(frozen=True)
class Places:
    """Repositories to read: folders, or ``hf://`` on the test hub."""

    home: Path
    """HOME of somebody who ran the demo."""
    shards: Path
    """A pile of several shards, not synthetic."""
    bare: Path
    """The same shards from repositories of other owners, without a ``units`` config."""
    mice: Path
    """A component, not synthetic."""
    server: HubServer

    def hub(self, name: str) -> Path:
        """A repository of the demo."""
        return self.home / DEMO_HOME / "hub" / "local" / name

    def __getitem__(self, place: str) -> Path | str:
        """What to read at a place: a pile."""
        return {"demo": self.hub("neural-pile"), "several shards": self.shards}.get(
            place, "hf://datasets/local/neural-pile"
        )

    def rows(self, place: str) -> list[Row]:
        """The train rows there; the test hub has the pile of several shards."""
        return train_rows(self.hub("neural-pile") if place == "demo" else self.shards)

    @property
    def cards(self) -> dict[str, Path]:
        """Folders of repositories, by what their cards differ in."""
        return {
            "synthetic component": self.hub("sample-units"),
            "synthetic pile": self.hub("neural-pile"),
            "component": self.mice,
            "pile": self.shards,
            "pile without units": self.bare,
        }


@pytest.fixture(scope="session")
def places() -> Iterator[Places]:
    with quick_folder() as folder:
        home = folder / "home"
        made, built = demo()
        assert built.code == 0, built
        put_sample(home / "my-home")  # of docs/architecture.md, which would make it there
        shutil.copytree(made / "hub", home / DEMO_HOME / "hub", symlinks=True)
        pile = Pile(folder / "pile")
        shards, bare = folder / "shards", folder / "bare"
        pile.write(shards)
        pile.write(bare, components=pile.components(record=None, tables=lambda config: []))
        assert len(train_shards(shards)) > 1
        with HubServer(folder / "server", xet=True) as server:
            hub = HuggingFaceHub("local", server.url, server.token, policy=QUICK)
            hub.publish("neural-pile", shards, quiet)
            hub.publish("mice", pile.staging / "mice", quiet)
            yield Places(home, shards, bare, pile.staging / "mice", server)


@pytest.fixture
def script(places: Places, tmp_path: Path) -> Script:
    """Run a script as a reader of the documentation, who has the demo and reaches the test hub alone."""
    online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": places.server.url, "OMP_NUM_THREADS": "1"}

    def run_script(code: str) -> tuple[int, str, str]:
        done = run(code, tmp_path / "x", HOME=places.home, **online)
        return done.returncode, done.stdout, done.stderr

    return run_script


def train_shards(folder: Path) -> list[Path]:
    return sorted((folder / "data").glob("train-*.parquet"))


def train_rows(folder: Path) -> list[Row]:
    rows = []
    for shard in train_shards(folder):
        with RowReader(shard) as reader:
            rows += [reader.row(i) for i in range(reader.n_rows)]
    return rows


def require_rows(ran: tuple[int, str, str], expected: list[Row], counts: Path) -> None:
    """The script ended well, named these rows, and left the counts of the last one."""
    code, out, err = ran
    assert code == 0, err
    assert [line.split()[:2] for line in out.splitlines()] == [[row.session_id, row.segment_id] for row in expected]
    found = np.load(counts)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected[-1].counts)


@pytest.mark.parametrize("block", DOCUMENTED, ids=lambda block: block.place)
def test_code_in_the_documentation_runs_as_it_stands_and_ends(block: Block, script: Script) -> None:
    code, _, err = script(block.code)
    assert code == 0, err


@pytest.mark.parametrize("kind", ["synthetic component", "synthetic pile", "component", "pile", "pile without units"])
def test_code_on_a_card_reads_a_local_copy_of_its_repository(
    kind: str, places: Places, script: Script, tmp_path: Path
) -> None:
    folder = places.cards[kind]
    code = reading_code((folder / "README.md").read_text("utf-8"))
    units = "assert len(units) and 'brain_area' in units\n" if "units.parquet" in code else ""
    assert bool(units) == (folder / "units").is_dir()
    require_rows(script(at(code, folder) + PROOF + units), train_rows(folder)[:1], tmp_path / "x" / "counts.npy")


@pytest.mark.parametrize("kind", ["synthetic component", "component", "pile without units"])
def test_training_code_on_a_card_reads_a_local_copy_of_its_repository(
    kind: str, places: Places, script: Script
) -> None:
    folder = places.cards[kind]
    code = at(reading_code((folder / "README.md").read_text("utf-8"), training=True), folder)
    if kind != "synthetic component":  # whose rows have 40 bins
        code = replaced(code, "n_bins=200", "n_bins=20")
    status, out, err = script(code)
    assert status == 0, err
    assert "'epoch': 0, 'samples': 1" in out


@pytest.mark.parametrize("kind", ["component", "pile"])
def test_code_on_a_card_runs_as_it_stands_against_the_hub(
    kind: str, places: Places, script: Script, tmp_path: Path
) -> None:
    folder = places.cards[kind]
    code = reading_code((folder / "README.md").read_text("utf-8"))
    ran = script(code + PROOF + NO_READER_LEFT)
    require_rows(ran, train_rows(folder)[:1], tmp_path / "x" / "counts.npy")


def test_the_cards_show_the_code_of_the_readme(places: Places) -> None:
    def of_any_repository(code: str) -> list[str]:
        return [line for line in code.splitlines() if not re.match("repository =|# pip install", line)]

    for kind in ("synthetic component", "synthetic pile", "component", "pile"):
        card = (places.cards[kind] / "README.md").read_text("utf-8")
        assert of_any_repository(reading_code(card)) == of_any_repository(README)


def test_leaving_the_loop_at_the_first_row_fetches_no_other_row_from_the_hub(
    places: Places, script: Script, tmp_path: Path
) -> None:
    folder, n_rows, row_bytes = tmp_path / "large", 8, 8_000_000
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    noise = np.random.default_rng(0)
    with RowWriter(folder / "data" / "train-00000.parquet") as writer:
        for k in range(n_rows):
            counts = np.frombuffer(noise.bytes(row_bytes), np.uint8).reshape(1_000, -1)
            writer.write(counts, "sub-1", "ses-1", f"segment_{k}")
    hub = HuggingFaceHub("local", places.server.url, places.server.token, policy=QUICK)
    hub.publish("large", folder, quiet)
    places.server.log.clear()
    reading, _ = at(README, "hf://datasets/local/large").split("# one row per unit")
    assert script(reading)[0] == 0
    fetched = sum(size for *_, size in places.server.requests("GET", "/lfs/get/"))
    assert row_bytes < fetched < 3 * row_bytes


@pytest.mark.parametrize("place", ["demo", "several shards", "hub"])
class TestTheReadmesCodeEnds:
    def test_when_its_loop_is_left_at_the_first_row(
        self, place: str, places: Places, script: Script, tmp_path: Path
    ) -> None:
        rows = places.rows(place)
        require_rows(script(at(README, places[place]) + PROOF), rows[:1], tmp_path / "x" / "counts.npy")

    def test_when_training_ends_at_the_first_batch(self, place: str, places: Places, script: Script) -> None:
        proof = "assert batch['counts'].dtype == 'uint8' and batch['counts'].shape[2] == 200\n"
        code = at(TRAINING, places[place])
        if place != "demo":  # the rates of its units are not known, and rows have 40 bins
            code, proof = replaced(code, "n_bins=200", "n_bins=20"), proof.replace("200", "20")
            code = replaced(code, 'pc.field("mean_rate_hz") > 0.1', 'pc.field("row") >= 0')
        status, out, err = script(code + proof + NO_READER_LEFT)
        assert status == 0, err
        assert "'epoch': 0, 'samples': 1" in out

    def test_after_all_rows_of_all_shards(self, place: str, places: Places, script: Script, tmp_path: Path) -> None:
        rows = places.rows(place)
        code = replaced(at(README, places[place]), "    break\n", "")
        require_rows(script(code + PROOF), rows, tmp_path / "x" / "counts.npy")

    def test_after_a_few_rows(self, place: str, places: Places, script: Script, tmp_path: Path) -> None:
        rows = places.rows(place)
        code = replaced(at(README, places[place]), "    break\n", "")
        code = replaced(code, 'in read_rows("train")', 'in itertools.islice(read_rows("train"), 2)')
        ran = script("import itertools\n" + code + PROOF)
        require_rows(ran, rows[:2], tmp_path / "x" / "counts.npy")

    def test_when_its_iterator_is_still_held(self, place: str, places: Places, script: Script) -> None:
        code = replaced(at(README, places[place]), 'in read_rows("train")', 'in (held := read_rows("train"))')
        assert script(code)[0] == 0

    def test_when_a_function_returns_from_the_loop(self, place: str, places: Places, script: Script) -> None:
        body = replaced(at(README, places[place]), "    break\n", "    return counts\n")
        code, out, err = script("def main():\n" + textwrap.indent(body, "    ") + "\nprint(main().dtype)\n")
        assert code == 0, err
        assert out.splitlines()[1:] == ["uint8"]

    def test_with_the_traceback_when_the_loop_raises(self, place: str, places: Places, script: Script) -> None:
        code = replaced(at(README, places[place]), "    break\n", '    raise ValueError("my mistake")\n')
        status, _, err = script(code)
        assert status == 1
        assert err.startswith("Traceback (most recent call last):")
        assert err.endswith("ValueError: my mistake\n")


def replaced(code: str, old: str, new: str) -> str:
    assert code.count(old) == 1
    return code.replace(old, new)
