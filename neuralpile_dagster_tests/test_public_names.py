"""What `import neuralpile_dagster` offers, and what it loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import neuralpile_dagster
from neuralpile_dagster.catalog.load import load_catalog
from neuralpile_dagster.recordings.model import read_session
from neuralpile_dagster.session.own_files import bin_files


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running this, beyond those that it starts with."""
    script = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_else() -> None:
    loaded = modules_after("import neuralpile_dagster")
    assert {name for name in loaded if name.startswith("neuralpile_dagster")} == {"neuralpile_dagster"}
    foreign = {name.split(".")[0] for name in loaded} - {"neuralpile_dagster"} - sys.stdlib_module_names
    assert foreign == set()
    assert loaded.isdisjoint({"importlib.metadata", "typing", "re"}), "each takes longer than all the rest"


def test_listing_the_names_loads_nothing() -> None:
    loaded = modules_after("import neuralpile_dagster\ndir(neuralpile_dagster)")
    assert not any(name.startswith("neuralpile_dagster.") for name in loaded)


@pytest.mark.parametrize("function", [bin_files, load_catalog, read_session])
def test_a_public_name_is_the_function_itself(function: object) -> None:
    name = function.__name__  # type: ignore[attr-defined]
    assert getattr(neuralpile_dagster, name) is function
    assert name in neuralpile_dagster.__all__
    assert name in dir(neuralpile_dagster)


def test_the_version_is_that_of_the_installed_distribution() -> None:
    assert neuralpile_dagster.__version__ == version("neuralpile-dagster")


def test_everything_listed_is_there_and_nothing_else_is() -> None:
    assert all(hasattr(neuralpile_dagster, name) for name in neuralpile_dagster.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'bin_file'"):
        neuralpile_dagster.bin_file  # noqa: B018


def test_type_checkers_see_the_same_homes() -> None:
    (block,) = [node for node in ast.parse(Path(neuralpile_dagster.__file__).read_text()).body if type(node) is ast.If]
    seen = {
        node.names[0].name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
    }
    assert seen == neuralpile_dagster._HOMES
