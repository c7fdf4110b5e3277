"""Rows exported to a file to map into memory: every byte, both layouts, and after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from neuralpile_dagster.cli import main
from neuralpile_dagster.errors import ConfigurationError, DiskFull, HubError
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.reading import Pile
from neuralpile_dagster.reading import export as exporting
from neuralpile_dagster.reading.export import export_pile
from neuralpile_dagster_tests.fixtures.hub_folders import contents, silent
from neuralpile_dagster_tests.fixtures.published import publish


@pytest.fixture(scope="module")
def pile(tmp_path_factory: pytest.TempPathFactory) -> Pile:
    folder = tmp_path_factory.mktemp("pile") / "neural-pile"
    publish(folder)
    return Pile.open(folder)


def assert_exported(folder: Path, pile: Pile, rows: list[int]) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    mapped = np.memmap(folder / "counts.u8", np.uint8, mode="r")
    assert len(mapped) == meta["tokens"]
    index = pq.read_table(folder / "index.parquet").to_pylist()
    segments = pile.segments.to_pylist()
    assert [{k: v for k, v in line.items() if k != "offset"} for line in index] == [segments[row] for row in rows]
    for line, row in zip(index, rows, strict=True):
        found = mapped[line["offset"] :][: line["tokens"]].reshape([line[name] for name in meta["shape_of_a_row"]])
        np.testing.assert_array_equal(found.T if meta["layout"] == "time-major" else found, pile.counts(row))


@pytest.mark.parametrize("layout", ["time-major", "unit-major"])
def test_the_command_exports_every_row(pile: Pile, tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exporting, "_BLOCK_BINS", 90)
    command = ["export", pile.place, str(tmp_path / "out"), "--layout", layout]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert_exported(tmp_path / "out", pile, list(range(pile.segments.num_rows)))
    assert sorted(contents(tmp_path / "out")) == ["counts.u8", "index.parquet", "lock", "meta.json"]
    assert "is up to date" in CliRunner().invoke(main, command).output


@pytest.mark.parametrize("name", ["mine", "local/mine"])
def test_a_pile_of_the_local_hub_is_known_by_its_name(
    pile: Pile, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NEURALPILE_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "hub" / "local").mkdir(parents=True)
    (tmp_path / "home" / "hub" / "local" / "mine").symlink_to(pile.place)
    done = CliRunner().invoke(main, ["export", name, str(tmp_path / "out"), "--layout", "time-major"])
    assert done.exit_code == 0, done.output


def test_an_unknown_name_is_refused_with_the_names_of_the_local_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURALPILE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "hub" / "local"
    command = ["export", "nope", str(tmp_path / "out"), "--layout", "time-major"]
    assert "what to do" not in CliRunner().invoke(main, command).output
    for name in ("mice", "neural-pile", ".versions"):
        (folder / name).mkdir(parents=True)
    expected = f"choose one of {folder}: mice, neural-pile"
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1 and expected in " ".join(refused.output.split())
    with pytest.raises(HubError, match=expected):
        Pile.open("nope")
    with pytest.raises(HubError, match=f"what to do: give the folder of it: {folder}/mice"):
        Pile.open("mice")  # a name is for the command


@pytest.mark.parametrize("error", [PermissionError("denied"), RuntimeError("no home")])
def test_an_unknown_name_is_refused_where_the_local_hub_cannot_be_looked_at(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(_: LocalHub) -> NoReturn:
        raise error

    monkeypatch.setattr(LocalHub, "repositories", refuse)
    with pytest.raises(HubError, match="nope is not a published dataset; found: no such folder"):
        Pile.open("nope")


def test_a_split_without_some_datasets_and_a_sample_are_what_was_asked_for(pile: Pile, tmp_path: Path):
    segments = pile.segments.to_pylist()
    wanted = [k for k, line in enumerate(segments) if line["split"] == "train" and line["source_dataset"] != "rats"]
    command = ["export", pile.place, str(tmp_path), "--layout", "unit-major", "--exclude-dataset"]
    assert CliRunner().invoke(main, [*command, "rats", "--split", "train"]).exit_code == 0
    assert_exported(tmp_path, pile, wanted)
    samples = [export_rows(pile, tmp_path / str(seed), max_rows=4, seed=seed) for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]
    assert all(len(sample) == 4 and sample == sorted(sample) for sample in samples)
    refused = CliRunner().invoke(main, [*command, "rat"])
    assert refused.exit_code == 1
    assert "no dataset 'rat' in the pile; expected: mice, rats" in refused.output


def export_rows(pile: Pile, folder: Path, **arguments: Any) -> list[int]:
    export_pile(pile, folder, "unit-major", progress=silent, **arguments)
    places = list(zip(*(pile.segments[name].to_pylist() for name in ("file", "row_group")), strict=True))
    index = pq.read_table(folder / "index.parquet")
    return [places.index(p) for p in zip(*(index[n].to_pylist() for n in ("file", "row_group")), strict=True)]


def test_an_interrupted_export_resumes_after_what_is_on_the_disk(
    pile: Pile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exporting, "_SYNC_BYTES", 3_000)
    export_pile(pile, tmp_path / "undisturbed", "unit-major", progress=silent)
    read: list[int] = []

    def fail_at_seven(self: Pile, row: int, counts: Any = Pile.counts) -> np.ndarray:
        read.append(row)
        if len(read) == 7:
            raise KeyboardInterrupt
        return counts(self, row)

    monkeypatch.setattr(Pile, "counts", fail_at_seven)
    with pytest.raises(KeyboardInterrupt):
        export_pile(pile, tmp_path / "out", "unit-major", progress=silent)
    assert not {"counts.u8", "meta.json"} & contents(tmp_path / "out").keys()
    with (tmp_path / "out/counts.u8.partial").open("ab") as file:
        file.write(b"not a row")
    lines: list[str] = []
    export_pile(pile, tmp_path / "out", "unit-major", progress=lines.append)
    assert lines[0].startswith("resuming after ")
    assert len(read) < 7 + pile.segments.num_rows
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_another_export_is_not_replaced(pile: Pile, tmp_path: Path):
    export_pile(pile, tmp_path, "unit-major", progress=silent)
    with pytest.raises(ConfigurationError, match="holds another export"):
        export_pile(pile, tmp_path, "time-major", progress=silent)


def test_a_disk_that_is_too_small_is_seen_before_writing(pile: Pile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("neuralpile_dagster.files.free_bytes", lambda _: 1_000)
    with pytest.raises(DiskFull, match=r"an export of \d+ rows"):
        export_pile(pile, tmp_path, "unit-major", progress=silent)
    assert not (tmp_path / "counts.u8.partial").exists()
