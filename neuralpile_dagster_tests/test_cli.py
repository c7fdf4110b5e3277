"""The command line: help, the catalog, sessions of an archive, names and settings that are wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.cli import main
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.tables.rows import Row
from neuralpile_dagster_tests.fixtures.commands import NEURALPILE, run
from neuralpile_dagster_tests.fixtures.house import FILES, MICE, SESSIONS, Ran, neuralpile, write_mice
from neuralpile_dagster_tests.fixtures.row_files import write_rows

COMMANDS = ("demo", "catalog", "sessions", "build", "status", "bin", "export", "raster", "ui", "doctor")
ROW = """\
datasets:
  - name: my-mice
    title: My mice
    source: {archive: dandi, id: "990100"}
"""


def paragraph(ran: Ran) -> str:
    """The one line on standard error that a command which failed leaves."""
    (line,) = explanation(ran).splitlines()
    return line


def explanation(ran: Ran) -> str:
    """All that a command which failed says, which is no traceback."""
    assert ran.code != 0
    assert "Traceback" not in ran.err
    return ran.err


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a catalog of one row, whose recordings are in the folder ``archive`` of it."""
    (tmp_path / "catalog.yaml").write_text(ROW)
    return tmp_path


def test_the_commands_are_those_of_the_contract() -> None:
    assert sorted(main.commands) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_its_options(command: str) -> None:
    ran = neuralpile(command, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: main {command}")
    options = [param for param in main.commands[command].params if param.param_type_name == "option"]
    for option in options:
        assert option.opts[-1] in ran.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help_text_or_a_default(command: str) -> None:
    for param in main.commands[command].params:
        if param.param_type_name == "option":
            assert getattr(param, "help", None) or param.default is not None, param.name


def test_the_installed_command_runs_and_knows_its_version() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("neuralpile"), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("neuralpile, version ")


@pytest.mark.parametrize("module", ["neuralpile_dagster", "neuralpile_dagster.cli"])
def test_the_package_and_its_cli_module_run_as_the_command(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"python -m {module}, version ")


def test_on_windows_which_has_no_fcntl_every_command_names_the_systems_that_are_supported() -> None:
    program = (
        "import sys; sys.modules['fcntl'] = None; from neuralpile_dagster.cli import main; "
        "sys.platform = 'win32'; main(['status'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.startswith("Error: neuralpile runs on Linux and macOS; found: Windows; what to do: ")
    assert paragraph(Ran(done.returncode, done.stdout, done.stderr))


def test_too_small_a_limit_of_memory_is_named_before_anything_is_made(tmp_path: Path) -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1_100_000_000, 1_100_000_000)); "
        "from neuralpile_dagster.cli import main; main(['build', 'sample-units'])"
    )
    environment = {**os.environ, "NEURALPILE_HOME": str(tmp_path / "home"), "NEURALPILE_ARCHIVE": "sample"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    said = paragraph(Ran(done.returncode, done.stdout, done.stderr))
    assert "found: a limit of 1.10 GB of address space (ulimit -v); expected: at least 1.5 GB" in said
    assert not (tmp_path / "home").exists()


def test_help_imports_neither_dagster_nor_numpy_nor_rich() -> None:
    program = (
        "import sys; from neuralpile_dagster.cli import main; print(*{'dagster', 'numpy', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_commands_that_only_look_do_not_import_dagster(home: Path) -> None:
    commands = [["status"], ["catalog", "--check"], ["sessions", "my-mice"], ["doctor", "--dataset", "my-mice"]]
    program = (
        f"import sys; from neuralpile_dagster.cli import main\nfor command in {commands}:\n"
        "  main(command, standalone_mode=False); print('imported:', *{'dagster', 'sqlalchemy'} & set(sys.modules))"
    )
    write_mice(home / "archive")
    environment = {**os.environ, "NEURALPILE_HOME": str(home), "NEURALPILE_ARCHIVE": str(home / "archive")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    found = [line for line in done.stdout.splitlines() if line.startswith("imported:")]
    assert found == ["imported:"] * len(commands)


def test_the_catalog_lists_every_dataset_with_source_sessions_and_tokens(tmp_path: Path) -> None:
    lines = neuralpile("catalog", NEURALPILE_HOME=tmp_path).out.splitlines()
    for row in RODENT:
        (line,) = [line for line in lines if line.split()[0] == row.name]
        assert row.source.id in line
        assert f"{row.sessions_due:,}" in line
        assert f"{row.tokens_published:,}" in line
    assert lines[-1].split() == ["43", "datasets", "3,078", "486,945,905,992"]


def test_rows_of_the_user_stand_at_the_end_of_the_catalog(home: Path) -> None:
    lines = neuralpile("catalog", NEURALPILE_HOME=home).out.splitlines()
    assert lines[-2].split()[:3] == ["my-mice", "dandi", "990100"]
    assert lines[-1].startswith("44 datasets")


def test_the_sample_catalog_shows_synthetic_datasets_alone(tmp_path: Path) -> None:
    out = neuralpile("catalog", NEURALPILE_HOME=tmp_path, NEURALPILE_ARCHIVE="sample").out
    names = [line.split()[0] for line in out.splitlines()[1:-1]]
    assert len(names) == 4
    assert all(name.startswith("sample-") for name in names)


def test_a_good_user_catalog_passes_its_check(home: Path) -> None:
    ran = neuralpile("catalog", "--check", NEURALPILE_HOME=home)
    assert (ran.code, ran.out) == (0, f"{home}/catalog.yaml: 1 row, all valid\n")


def test_the_check_names_the_lines_that_hold_for_all_rows(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text("unit_order: true\nmotif_shapes: [[1, 15]]\n")
    ran = neuralpile("catalog", "--check", NEURALPILE_HOME=tmp_path)
    said = "0 rows, all valid; for all of them: motif_shapes, unit_order"
    assert (ran.code, ran.out) == (0, f"{tmp_path}/catalog.yaml: {said}\n")


@pytest.mark.parametrize(
    ("pile", "message"),
    [
        ("split_by: subjects", "the pile mine, split_by: subjects needs the hash rule"),
        ("test_size: 0.6, valid_size: 0.6", "the pile mine, test_size and valid_size leave nothing to train on"),
        ("hold_out: ['benchmark:zzz']", "the pile mine, hold_out: benchmark:zzz names nothing"),
    ],
)
def test_a_pile_that_can_never_be_planned_fails_the_check_of_the_catalog(home: Path, pile: str, message: str) -> None:
    with (home / "catalog.yaml").open("a") as file:
        file.write(f"piles: [{{name: mine, title: Mine, components: [my-mice], {pile}}}]\n")
    ran = neuralpile("catalog", "--check", NEURALPILE_HOME=home)
    assert ran.code == 1
    assert message in ran.err


def test_an_absent_user_catalog_passes_its_check_and_is_said_to_be_absent(tmp_path: Path) -> None:
    ran = neuralpile("catalog", "--check", NEURALPILE_HOME=tmp_path)
    assert ran.code == 0
    assert "does not exist" in ran.out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title: My mice", "titel: My mice", "did you mean 'title'"),
        ("name: my-mice", "name: steinmetz", "the name is taken"),
        ("title: My mice", "title: My mice\n    severity: {no_doubles: warn}", "there is no check 'no_doubles'"),
        ("title: My mice", 'title: My mice\n    sessions: {include: ["("]}', "is not a regular expression"),
    ],
)
def test_a_bad_user_catalog_fails_its_check_and_every_command_that_needs_it(
    home: Path, old: str, new: str, said: str
) -> None:
    (home / "catalog.yaml").write_text(ROW.replace(old, new))
    assert said in explanation(neuralpile("catalog", "--check", NEURALPILE_HOME=home))
    assert said in explanation(neuralpile("build", "my-mice", NEURALPILE_HOME=home))
    assert said in explanation(neuralpile("ui", NEURALPILE_HOME=home))


def test_sessions_as_json_are_lines_with_the_fields_of_the_contract_and_nothing_else(home: Path) -> None:
    write_mice(home / "archive")
    environment = {**os.environ, "NEURALPILE_HOME": str(home), "NEURALPILE_ARCHIVE": str(home / "archive")}
    done = run([NEURALPILE, "sessions", "my-mice", "--json"], environment)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(row) for row in rows] == [["subject_id", "session_id", "files", "version"]] * 3
    assert [(row["subject_id"], row["session_id"]) for row in rows] == [
        (Path(file).parent.name, session) for file, session in zip(FILES, SESSIONS, strict=True)
    ]
    for row, file in zip(rows, FILES, strict=True):
        size = (home / "archive" / MICE.source.folder / file).stat().st_size
        assert row["files"] == [{"path": file, "size": size}]


def test_sessions_as_a_table_tell_what_the_rule_dropped(home: Path) -> None:
    write_mice(home / "archive")
    (home / "archive" / MICE.source.folder / "notes.txt").write_text("not a recording")
    out = neuralpile("sessions", "my-mice", NEURALPILE_HOME=home, NEURALPILE_ARCHIVE=home / "archive").out
    assert "my-mice: 3 sessions" in out
    assert "4 files considered" in out
    assert "1 dropped: path matches no include pattern" in out


@pytest.mark.parametrize("command", [("build",), ("sessions",), ("status",)])
def test_an_unknown_dataset_is_refused_with_close_names_before_anything_runs(
    command: tuple[str, ...], home: Path
) -> None:
    said = paragraph(neuralpile(*command, "my-mise", NEURALPILE_HOME=home))
    assert "there is no dataset 'my-mise'" in said
    assert "did you mean 'my-mice'" in said
    assert "expected: one of" not in said, "the close names are not all that there are"
    assert "neuralpile catalog" in said
    assert [path.name for path in home.iterdir()] == ["catalog.yaml"]


def test_a_dataset_of_the_sample_is_refused_with_the_setting_that_shows_it(home: Path) -> None:
    said = paragraph(neuralpile("build", "sample-units", NEURALPILE_HOME=home))
    assert "sample-units is in the sample archive alone; expected: NEURALPILE_ARCHIVE=sample" in said


def test_one_unknown_dataset_among_others_stops_a_build_before_anything_runs(home: Path) -> None:
    assert "'nobody'" in paragraph(neuralpile("build", "my-mice", "nobody", NEURALPILE_HOME=home))
    assert not (home / "store").exists()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("NEURALPILE_BIN_WIDTH", "fast", "NEURALPILE_BIN_WIDTH is invalid; found: fast; expected: a number from"),
        ("NEURALPILE_BIN_WIDTH", "0", "NEURALPILE_BIN_WIDTH is invalid; found: 0; expected: a number from"),
        ("NEURALPILE_MAX_TOKENS", "-5", "NEURALPILE_MAX_TOKENS is invalid"),
        ("NEURALPILE_HUB", "moon", "NEURALPILE_HUB is invalid; found: moon; expected: 'local' or 'hf'"),
        ("NEURALPILE_HUB", "hf", "NEURALPILE_NAMESPACE is not set"),
        ("NEURALPILE_ARCHIVE", "dandy", "NEURALPILE_ARCHIVE is invalid; found: dandy; expected: 'dandi', 'sample', or"),
        ("NEURALPILE_BINWIDTH", "0.01", "NEURALPILE_BINWIDTH is not a setting; expected: NEURALPILE_BIN_WIDTH;"),
        (
            "NEURALPILE_STORE",
            "gs://bucket",
            "NEURALPILE_STORE is invalid; found: unknown kind of store gs://; expected: a",
        ),
        (
            "NEURALPILE_STORE",
            "s3:/bucket",
            "NEURALPILE_STORE is invalid; found: unknown kind of store s3:/; expected: a",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(home: Path, variable: str, value: str, said: str) -> None:
    assert said in paragraph(neuralpile("status", NEURALPILE_HOME=home, **{variable: value}))


def test_an_archive_folder_that_is_not_there_is_named_with_how_to_fill_it(home: Path) -> None:
    said = paragraph(neuralpile("sessions", "my-mice", NEURALPILE_HOME=home, NEURALPILE_ARCHIVE=home / "nowhere"))
    assert f"{home}/nowhere is not a folder" in said
    assert "dandi download DANDI:990100" in said


@pytest.mark.parametrize("command", [("status",), ("status", "my-mice"), ("catalog",), ("catalog", "--check")])
def test_a_home_that_is_a_file_is_refused_and_not_shown_as_an_empty_one(tmp_path: Path, command: tuple[str]) -> None:
    (tmp_path / "home").write_text("notes")
    said = paragraph(neuralpile(*command, NEURALPILE_HOME=tmp_path / "home"))
    assert "NEURALPILE_HOME is not a folder" in said
    assert f"found: {tmp_path}/home, a file" in said
    assert "what to do: set NEURALPILE_HOME to a folder" in said


def test_numbers_are_followed_by_their_nouns() -> None:
    assert [plural(number, "row") for number in (0, 1, 2, 1200)] == ["0 rows", "1 row", "2 rows", "1,200 rows"]
    assert [plural(number, "process", "processes") for number in (1, 2)] == ["1 process", "2 processes"]


def test_status_of_a_fresh_home_counts_the_datasets_and_lists_them_when_asked(home: Path) -> None:
    ran = neuralpile("status", NEURALPILE_HOME=home)
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "44 datasets without a manifest: neuralpile catalog lists them",
        "neural-pile: no component is published yet",
    ]
    ran = neuralpile("status", "--all", NEURALPILE_HOME=home)
    lines = ran.out.splitlines()
    assert ran.out.count("no manifest") == 44
    assert [line.split(":")[0] for line in lines[45:47]] == ["neural-pile", "neural-pile-primate"]
    assert lines[47].startswith("reader untested on real files (neuralpile doctor --dataset NAME tries it): xiao, ")
    assert lines[48:] == ["rule untested on a real listing: xiao, chen, kim, even-chen"]


def test_status_lists_a_dataset_that_is_asked_for_though_it_is_not_begun(home: Path) -> None:
    header, row = neuralpile("status", "my-mice", NEURALPILE_HOME=home).out.splitlines()
    assert (header.split()[0], row.split()[0]) == ("dataset", "my-mice")
    assert "no manifest" in row


@pytest.mark.parametrize("lost", ["spike_counts/a.json", "failures/a.json"])
def test_status_lists_first_the_dataset_of_which_the_home_has_anything(home: Path, lost: str) -> None:
    left = home / "store" / "my_mice" / lost  # what stays when somebody deletes a manifest
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    lines = neuralpile("status", NEURALPILE_HOME=home).out.splitlines()
    assert [line.split()[0] for line in lines] == ["dataset", "my-mice", "43", "neural-pile:"]
    assert lines[2] == "43 more datasets without a manifest: neuralpile catalog lists them"
    every = neuralpile("status", "--all", NEURALPILE_HOME=home).out.splitlines()
    assert every[1].split()[0] == "my-mice", "the catalog itself has it last"
    assert sum(" no manifest " in line for line in every) == 44


@pytest.mark.parametrize("name", ["rows.pdf", "rows.jpg", "rows"])
def test_a_raster_of_another_format_than_png_is_refused_before_anything_is_read(home: Path, name: str) -> None:
    said = paragraph(neuralpile("raster", "nothing", "-o", home / name, NEURALPILE_HOME=home))
    found = f"the suffix {Path(name).suffix}" if "." in name else "no suffix"
    assert f"{home / name} cannot be written; found: {found}; expected: a name that ends in .png" in said


@pytest.mark.parametrize("source", ["nothing", "my-mice", "someone/something"])
def test_a_raster_of_nothing_says_what_can_be_drawn_or_built(home: Path, source: str) -> None:
    said = paragraph(neuralpile("raster", source, "-o", home / "out.png", NEURALPILE_HOME=home))
    assert source in said
    assert "neuralpile" in said
    assert not (home / "out.png").exists()


def test_a_raster_of_a_repository_that_is_not_there_names_the_hub_that_was_searched(home: Path) -> None:
    said = paragraph(neuralpile("raster", "someone/something", "-o", home / "out.png", NEURALPILE_HOME=home))
    assert f"someone/something has no rows to draw yet on the local hub {home / 'hub'}" in said
    assert "set NEURALPILE_HUB=hf (and NEURALPILE_NAMESPACE) to read from the Hugging Face Hub" in said


def test_a_raster_of_all_draws_every_row_in_a_png_of_its_own(home: Path) -> None:
    rows = [Row(np.ones((2, 30), np.uint8), "sub-1", f"ses/{n}", f"segment_{k}") for n in range(2) for k in range(2)]
    source = write_rows(home / "rows.parquet", rows)
    ran = neuralpile("raster", source, "--all", "-o", home / "drawn", NEURALPILE_HOME=home)
    assert f"{home / 'drawn'}: all 4 rows of {source}" in ran.out
    drawn = sorted((home / "drawn").iterdir())
    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [path.name for path in drawn] == [
        f"00000{number}-ses_{n}_segment_{k}_2_units_x_30_bins.png" for number, (n, k) in enumerate(places, 1)
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_a_raster_of_all_is_refused_where_there_can_be_no_folder(home: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "file").write_text("")
    said = paragraph(neuralpile("raster", "nothing", "--all", "-o", home / "file", NEURALPILE_HOME=home))
    assert f"{home / 'file'} cannot be written; found: {home / 'file'} is a file; expected: a folder there" in said
    said = paragraph(neuralpile("raster", "someone/something", "--all", "-o", home / "drawn", NEURALPILE_HOME=home))
    assert "someone/something has no rows to draw yet" in said
    assert not (home / "drawn").exists()
