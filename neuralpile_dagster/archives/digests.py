"""Digests of files, as archives list them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.errors import ArchiveError

KNOWN = ("sha256", "dandi-etag", "md5")  # the first that is listed is verified
_HEX = re.compile(r"[0-9a-f]{32,128}(-\d{1,5})?")


def listed_digest(file: ArchiveFile) -> tuple[str, str]:
    """Algorithm and value of the digest that a copy of ``file`` must have; raises `ArchiveError` without one."""
    for algorithm in KNOWN:
        value = file.digests.get(algorithm, "").lower()
        if _HEX.fullmatch(value):
            return algorithm, value
    raise ArchiveError(
        f"{file.path} cannot be verified, so it is not downloaded",
        found=f"digests {file.digests}",
        expected=f"one of {', '.join(KNOWN)}",
        remedy="materialize the dataset's manifest again (archives compute digests some time after an upload), "
        "or set access to 'ranges'",
    )


def digest_of(path: Path, algorithm: str) -> str:
    """The digest of a local file, in hex.

    ``dandi-etag`` is the S3 multipart ETag (md5 of the parts' md5s, ``-`` and
    their number) with DANDI's own rule for the size of parts.
    """
    if algorithm == "dandi-etag":
        from dandischema.digests.dandietag import DandiETag

        etag: str = DandiETag.from_file(path).as_str()
        return etag
    with path.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()
