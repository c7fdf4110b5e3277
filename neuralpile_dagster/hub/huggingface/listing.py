"""Read listings of the Hub's API, with a limit of pages and an error for invalid entries.

huggingface_hub follows links to further pages without limit, and raises a bare `TypeError` for an invalid page. What
the lists are used for belongs to `publishing` and `hub`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from huggingface_hub import HfApi, get_session, hf_raise_for_status
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers

from neuralpile_dagster.errors import HubError

MAX_PAGES = 1000
"""Pages of one list; the Hub gives a thousand files or datasets a page."""
KEPT = (".gitattributes",)
"""Files that the Hub itself adds to a repository: neither published, nor listed, nor deleted."""


def remote_files(api: HfApi, repository: str, revision: str) -> dict[str, RepoFile]:
    """The files of a revision, by path.

    Raises `HubError` for a list that does not end or is not understood, and what huggingface_hub raises.
    """
    what = f"the files of {repository}"
    files: dict[str, RepoFile] = {}
    for row in _rows(api, f"datasets/{repository}/tree/{revision}", {"recursive": "true"}, what):
        try:
            if row["type"] != "file":
                continue
            file = RepoFile(**row)
            is_valid = isinstance(file.path, str) and isinstance(file.size, int) and isinstance(file.blob_id, str)
        except (LookupError, TypeError, AttributeError, ValueError):
            is_valid = False
        if not is_valid:
            raise _not_understood(what, f"the entry {str(row)[:200]}")
        if file.path in files:
            raise _endless(what, f"{file.path} twice")
        files[file.path] = file
    return {path: file for path, file in files.items() if path not in KEPT}


def dataset_names(api: HfApi, owner: str) -> list[str]:
    """Names, without owner, of an owner's datasets, sorted; errors as `remote_files`."""
    what = f"the datasets of {owner}"
    ids = [row.get("id") for row in _rows(api, "datasets", {"author": owner}, what)]
    texts = [each for each in ids if isinstance(each, str)]
    if len(texts) < len(ids):
        raise _not_understood(what, "an entry without id")
    return sorted({each.rpartition("/")[2] for each in texts})


def _rows(api: HfApi, path: str, query: dict[str, str], what: str) -> Iterator[dict[str, Any]]:
    """The entries of all pages of a list."""
    url, seen = f"{api.endpoint}/api/{path}?{urlencode(query)}", set()
    for _ in range(MAX_PAGES):
        seen.add(url)
        response = get_session().get(url, headers=build_hf_headers(token=api.token))
        hf_raise_for_status(response)
        page = response.json()
        if not isinstance(page, list) or not all(isinstance(row, dict) for row in page):
            raise _not_understood(what, f"{type(page).__name__} {str(page)[:200]}")
        yield from page
        url = response.links.get("next", {}).get("url", "")
        if not url:
            return
        if url in seen:
            raise _endless(what, "a link to a page that was read before")
    raise _endless(what, f"more than {MAX_PAGES:,} pages")


def _endless(what: str, found: str) -> HubError:
    return HubError(
        f"the list of {what} does not end",
        found=found,
        expected="every entry once, on a limited number of pages",
        remedy="check HF_ENDPOINT; report it to the hub's administrators if it is theirs",
    )


def _not_understood(what: str, found: str) -> HubError:
    return HubError(
        f"the list of {what} was not understood",
        found=found,
        expected="a JSON list of objects, as the Hugging Face Hub gives it",
        remedy="check HF_ENDPOINT; upgrade neuralpile-dagster if the hub is newer",
    )
