"""Probes of the machine: versions of packages, their imports, the home and the store."""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from neuralpile_dagster.doctor.model import Finding, failed, not_needed, ok, warning
from neuralpile_dagster.files import explained, free_bytes
from neuralpile_dagster.settings import Settings

PACKAGE = "neuralpile-dagster"
SHOWN = ("dagster", "dandi", "h5py", "huggingface_hub", "numpy", "pyarrow", "pynwb")
"""Packages whose versions are always shown, for bug reports."""
IMPORTED = ("boto3.session", "dandi.dandiapi", "h5py", "huggingface_hub", "numpy", "pyarrow.parquet")
"""Binary or slow packages that other probes and builds import."""
LITTLE_BYTES = 2_000_000_000
"""Free disk below which a dataset of medium size (8 G tokens) may not fit."""


def versions() -> Finding:
    """Compare installed packages with the bounds in the package's own metadata."""
    wrong, seen = [], {}
    for requirement in _requirements():
        try:
            seen[requirement.name] = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement} (not installed)")
            continue
        if not requirement.specifier.contains(seen[requirement.name], prereleases=True):
            wrong.append(f"{requirement} ({seen[requirement.name]} is installed)")
    python = metadata(PACKAGE)["Requires-Python"]
    if python and not SpecifierSet(python).contains(platform.python_version(), prereleases=True):
        wrong.append(f"python{python} ({platform.python_version()} is running)")
    if wrong:
        return failed(
            f"{PACKAGE} {version(PACKAGE)} needs {', '.join(wrong)}",
            "install it again as the README says, in an environment of its own",
        )
    named = ", ".join(f"{name} {seen[name]}" for name in SHOWN if name in seen)
    return ok(
        f"{PACKAGE} {version(PACKAGE)} on python {platform.python_version()}: {named}; "
        f"all {len(seen)} packages are within their bounds"
    )


def _requirements() -> list[Requirement]:
    """Requirements of the package without extras."""
    found = (Requirement(text) for text in requires(PACKAGE) or ())
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]


def plugins() -> Finding:
    """Load the readers and analyses that other packages add; a broken one stops every build."""
    from neuralpile_dagster.catalog import readers
    from neuralpile_dagster.ledger import analyses

    added = {
        "readers": [name for name in readers.all_readers() if name not in readers.BUILT_IN],
        "analyses": [row.name for row in analyses.all_analyses() if row not in analyses.BUILT_IN],
    }
    named = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in added.items() if names)
    return ok(named) if named else not_needed("no other package adds readers or analyses")


def imports() -> Finding:
    """Import slow or possibly broken packages, so that later probes wait for servers only."""
    began = time.monotonic()
    for name in IMPORTED:
        try:
            import_module(name)
        except ImportError as error:
            return failed(
                f"{name} cannot be imported: {error}",
                f"install it again: {sys.executable} -m pip install --force-reinstall {name.partition('.')[0]}",
            )
    return ok(f"{len(IMPORTED)} packages imported in {time.monotonic() - began:.1f} s")


def home(settings: Settings) -> Finding:
    """Check that the home is writable, and its free space."""
    return _folder(settings.home, "NEURALPILE_HOME")


def store(settings: Settings) -> Finding:
    """Check the store's folder like the home; on S3 list it, which needs the bucket and the credentials."""
    from neuralpile_dagster.store import LocalStore, open_store

    opened = open_store(settings.store)
    if isinstance(opened, LocalStore):
        return _folder(opened.root, "NEURALPILE_STORE")
    from neuralpile_dagster.net.retry import RetryPolicy
    from neuralpile_dagster.store.s3.store import open_s3_store

    on_s3 = open_s3_store(settings.store, RetryPolicy(connect_timeout_s=4.0, read_timeout_s=5.0, attempts=1))
    some = next(on_s3.keys("neural_pile"), None)
    contents = "no pile yet" if some is None else "a pile"
    return ok(f"{settings.store} can be listed ({contents}); writing was not tried")


def _folder(folder: Path, variable: str) -> Finding:
    """Check that an unnamed file can be written where ``folder`` is, or would be made."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    with explained(folder), tempfile.TemporaryFile(dir=there) as file:
        file.write(b"0")
        file.flush()
    free = free_bytes(there)
    found = f"{folder} is writable{'' if there == folder else ' (not made yet)'}, {free / 1e9:,.1f} GB free"
    if free < LITTLE_BYTES:
        return warning(found, f"free some space, or set {variable} to a larger disk")
    return ok(found)
