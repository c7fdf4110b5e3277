"""Every command that the documentation names exists, with the options that it shows."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess

import click
import pytest

from neuralpile_dagster.cli import main
from neuralpile_dagster_tests.fixtures.documented import ROOT, documented_lines


def commands_of(program: str) -> list[tuple[str, tuple[str, ...]]]:
    """Where and with which arguments the documentation shows a program, each once."""
    found: dict[tuple[str, ...], str] = {}
    for place, line in documented_lines():
        if program not in line:
            continue
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue  # inline code that is no shell
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words[1:] and words[0] == program:
            found.setdefault(tuple(words[1:]), place)
    return [(place, arguments) for arguments, place in found.items()]


def named(shown: list[tuple[str, tuple[str, ...]]]) -> list[object]:
    return [pytest.param(arguments, id=f"{place} {' '.join(arguments)}") for place, arguments in shown]


@pytest.mark.parametrize("arguments", named(commands_of("neuralpile")))
def test_neuralpile_has_the_command_and_its_options(arguments: tuple[str, ...]) -> None:
    name, *rest = arguments
    command: click.Command = main
    if name.startswith("-"):
        rest = list(arguments)
    else:
        command = main.commands[name]
    _, left, _ = command.make_parser(click.Context(command)).parse_args(rest)
    assert not left


@pytest.mark.parametrize("arguments", named(commands_of("make")))
def test_make_has_the_target(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def of_files(shown: list[tuple[str, tuple[str, ...]]]) -> list[tuple[str, tuple[str, ...]]]:
    """Those that run a module or a script of ours; not ``python -c`` and the like."""
    return [(place, arguments) for place, arguments in shown if arguments[0] == "-m" or arguments[0].endswith(".py")]


@pytest.mark.parametrize("arguments", named(of_files(commands_of("python"))))
def test_python_has_the_module_or_script(arguments: tuple[str, ...]) -> None:
    if arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]) is not None
    else:
        assert (ROOT / arguments[0]).is_file()
