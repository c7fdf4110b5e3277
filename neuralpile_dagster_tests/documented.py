"""Code that the documentation and the cards show: finding it, and running it as a reader of them would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "deploy").rglob("*.md")))
SHELLS = ("bash", "sh", "shell", "console")
HANGS_S = 120
"""A script that runs longer never ends."""

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\w*)\n(?P<code>.*?)^(?P=fence)$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_REPOSITORY = re.compile(r'^repository = ".*?"', re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a Markdown text; ``place`` is for the test's name."""

    place: str
    language: str
    code: str


def blocks(markdown: str, place: str) -> list[Block]:
    """The fenced blocks of a text."""
    return [
        Block(f"{place}:{markdown.count(chr(10), 0, found.start()) + 1}", found["language"], found["code"])
        for found in _FENCE.finditer(markdown)
    ]


def documented_blocks(*languages: str) -> list[Block]:
    """The blocks of README, docs and deploy in one of these languages."""
    pages = ((page.read_text("utf-8"), page.relative_to(ROOT).as_posix()) for page in PAGES)
    return [block for text, place in pages for block in blocks(text, place) if block.language in languages]


def documented_lines() -> Iterator[tuple[str, str]]:
    """Every line of shell, in blocks and in running text, with the page it is on; CONTRIBUTING.md's too."""
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        text, place = page.read_text("utf-8"), page.relative_to(ROOT).as_posix()
        for block in blocks(text, place):
            if block.language in SHELLS:
                yield from ((block.place, line) for line in block.code.splitlines())
        yield from ((place, line) for line in _INLINE.findall(_FENCE.sub("", text)))


def reading_code(markdown: str) -> str:
    """The one Python block of a text that reads a repository."""
    (code,) = [block.code for block in blocks(markdown, "") if block.language == "python"]
    return code


def at(code: str, repository: Path | str) -> str:
    """The code, reading another repository: the one thing that its reader changes."""
    assert len(_REPOSITORY.findall(code)) == 1
    return _REPOSITORY.sub(lambda _: f"repository = {str(repository)!r}", code)


def run(code: str, folder: Path, **environment: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, in an empty folder; one that never ends is `subprocess.TimeoutExpired`.

    It reaches no network unless ``environment`` says otherwise.
    """
    folder.mkdir(parents=True)
    (folder / "script.py").write_text(code, "utf-8")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("NEURALPILE_", "HF_", "DAGSTER_"))
    }
    given = {"HF_HUB_OFFLINE": "1", "HF_HOME": folder / "huggingface", "PYTHONPATH": ROOT, **environment}
    return subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**kept, **{name: str(value) for name, value in given.items()}},
        capture_output=True,
        text=True,
        timeout=HANGS_S,
    )
