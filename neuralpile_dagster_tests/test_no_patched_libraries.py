"""The published pipeline patched its HTTP library; nothing here changes what belongs to another library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import neuralpile_dagster

ROOT = Path(neuralpile_dagster.__file__).parent
OURS = "neuralpile_dagster"
HOOKS = frozenset({"sys.unraisablehook"})
"""Attributes that Python's documentation tells programs to set."""


def patches(source: str) -> list[str]:
    """The statements of a module that change attributes of something imported from elsewhere."""
    tree = ast.parse(source)
    foreign = _foreign_names(tree)
    found = []
    for node in ast.walk(tree):
        targets = [target for target in _targets(node) if _changes(target, foreign)]
        if targets or _calls_setter(node, foreign):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")  # type: ignore[attr-defined]
    return found


def _foreign_names(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(a.asname or a.name).split(".")[0] for a in node.names if not a.name.startswith(OURS)}
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(OURS) and node.level == 0:
            names |= {alias.asname or alias.name for alias in node.names}
    known = 0
    while known != len(names):  # names given to foreign modules, classes and functions (not to what calls return)
        known = len(names)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and _is_foreign(node.value, names):
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _is_foreign(value: ast.expr, foreign: set[str]) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func) in ("import_module", "importlib.import_module", "__import__")
    if isinstance(value, ast.Attribute) and not value.attr.startswith("__"):
        return _is_foreign(value.value, foreign)
    return isinstance(value, ast.Name) and value.id in foreign


def _targets(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Assign | ast.Delete):
        roots = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For | ast.AsyncFor):
        roots = [node.target]
    elif isinstance(node, ast.With | ast.AsyncWith):
        roots = [item.optional_vars for item in node.items if item.optional_vars is not None]
    else:
        return
    for root in roots:
        yield from (part for part in ast.walk(root) if isinstance(part, ast.Attribute | ast.Subscript))


def _changes(target: ast.expr, foreign: set[str]) -> bool:
    if not isinstance(getattr(target, "ctx", None), ast.Store | ast.Del):
        return False
    if isinstance(target, ast.Subscript):  # a namespace written by key; os.environ[...] is no namespace
        text = ast.unparse(target.value)
        return text.endswith(("__dict__", "sys.modules")) or text.startswith(("vars(", "globals("))
    assert isinstance(target, ast.Attribute)
    if ast.unparse(target) in HOOKS:
        return False
    base = target.value
    while isinstance(base, ast.Attribute | ast.Call | ast.Subscript):
        base = base.func if isinstance(base, ast.Call) else base.value
    return isinstance(base, ast.Name) and base.id in foreign


def _calls_setter(node: ast.AST, foreign: set[str]) -> bool:
    if not isinstance(node, ast.Call) or not node.args:
        return False
    name = ast.unparse(node.func)
    if name.startswith(("mock.", "unittest.mock.", "monkeypatch.")) or name == "patch":
        return True
    return name.endswith(("setattr", "delattr", "__setattr__", "__delattr__")) and _is_foreign(node.args[0], foreign)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_changes_another_library(path: Path):
    assert patches(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import httpx2\nhttpx2.Client.send = None",
        "import huggingface_hub.utils as u\nu.get_session = None",
        "from datasets import config\nconfig.X = 1",
        "from datasets import config\nconfig.X += 1",
        "import requests\ndel requests.get",
        "import requests\nsetattr(requests.Session, 'get', None)",
        "import requests\nobject.__setattr__(requests, 'get', None)",
        "import importlib\nm = importlib.import_module('requests')\nm.get = None",
        "import requests\nclient = requests.Session\nclient.get = None",
        "import requests\nvars(requests)['get'] = None",
        "import requests\nrequests.__dict__['get'] = None",
        "import sys\nsys.modules['requests'] = None",
        "import sys\nsys.excepthook = print",
        "import logging\nlogging.getLogger('httpx').disabled = True",
        "from unittest import mock\nmock.patch('requests.get')",
        "import requests\nwith open('x') as requests.get:\n    pass",
        "import requests\nx, requests.get = 1, 2",
    ],
)
def test_a_patched_library_would_be_found(source: str):
    assert len(patches(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['A'] = 'b'",
        "import numpy as np\nx = np.zeros(3)\nx[0] = 1\nx.flags.writeable = False",
        "class A:\n    def __init__(self) -> None:\n        self.x = 1",
        "from neuralpile_dagster import settings\nsettings.x = 1",
        "import sys\nsys.unraisablehook = print",
    ],
)
def test_what_is_ours_may_change(source: str):
    assert patches(source) == []
