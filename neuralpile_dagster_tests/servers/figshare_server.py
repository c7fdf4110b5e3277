"""figshare for tests: the public part of its API that we use, and its downloads (a redirect to a signed URL).

The forms are those of figshare's own description of its API, https://docs.figshare.com/swagger.json (2.0.0, from
github.com/figshare/user_documentation): ``ArticleComplete`` for ``/articles/{id}`` and ``/articles/{id}/versions/{v}``,
lists of ``PublicFile`` for ``.../files`` (``page_size`` is 10 unless given and 1000 at most), ``ErrorMessage``. A field
is sent exactly when the description requires it (or, of a file, names it).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuralpile_dagster_tests.servers.http import Request, Response, Server, file_response, json_response


@dataclass
class Article:
    """One version of an article."""

    article_id: int
    version: int
    fields: dict[str, Any]
    files: list[tuple[int, str, Path]] = field(default_factory=list)

    def document(self, base: str) -> dict[str, Any]:
        """As the API at ``base`` gives it; "files: List of up to 10 article files", all of them page by page."""
        day = f"2019-03-0{self.version}T12:00:00Z"
        title = "made for tests"
        page = f"https://figshare.com/articles/dataset/made_for_tests/{self.article_id}/{self.version}"
        api = f"{base}/v2/articles/{self.article_id}"
        own = {"url_private_html": f"https://figshare.com/account/articles/{self.article_id}", "url_private_api": api}
        return {
            "id": self.article_id,
            "version": self.version,
            "title": title,
            "description": "<p>words</p>",
            "doi": f"10.6084/m9.figshare.{self.article_id}.v{self.version}",
            "url": api,
            "url_public_api": api,
            "url_public_html": page,
            "figshare_url": page,
            **own,
            "handle": "",
            "resource_doi": "10.1126/science.aav7893",
            "resource_title": "a paper",
            "group_id": None,
            "published_date": day,
            "modified_date": day,
            "created_date": day,
            "status": "public",
            "timeline": {"posted": day, "submission": None, "revision": None}
            | dict.fromkeys(("firstOnline", "publisherPublication", "publisherAcceptance"), day),
            "thumb": "",
            "defined_type": 3,
            "defined_type_name": "dataset",
            "tags": ["t1"],
            "references": [],
            "authors": [_author(1, "Ada", "Tester"), _author(2, "Bo", "Tester")],
            "license": {"value": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"},
            "citation": "Tester, Ada; Tester, Bo (2019). Made for tests. figshare. Dataset.",
            "files": [_entry(base, *file) for file in self.files[:10]],
            "size": sum(path.stat().st_size for _, _, path in self.files),
            "funding": "",
            "funding_list": [],
            "custom_fields": [],
            "categories": [],
            "embargo_options": [],
            "is_active": True,
            "is_public": True,
            "is_metadata_record": False,
            "metadata_reason": "",
            "is_confidential": False,
            "confidential_reason": "",
            "has_linked_file": False,
            "is_embargoed": False,
            "embargo_type": None,
            "embargo_date": None,
            "embargo_title": "",
            "embargo_reason": "",
            "download_disabled": False,
            **self.fields,
        }


def _author(number: int, first: str, last: str) -> dict[str, Any]:
    return {
        "id": number,
        "full_name": f"{first} {last}",
        "first_name": first,
        "last_name": last,
        "is_active": True,
        "url_name": f"{first}_{last}",
        "orcid_id": "",
    }


class FigshareStore:
    """All articles and files; the application of the server."""

    def __init__(self) -> None:
        self.articles: dict[int, list[Article]] = {}
        self.files: dict[int, Path] = {}
        self.signature = 0  # of signed URLs; all older ones have expired

    def add_article(self, article_id: int, files: dict[str, Path], **fields: Any) -> Article:
        """Add a version of an article: the first, or the next."""
        versions = self.articles.setdefault(article_id, [])
        article = Article(article_id, len(versions) + 1, fields)
        for name, path in files.items():
            file_id = 1000 + len(self.files)
            self.files[file_id] = path
            article.files.append((file_id, name, path))
        versions.append(article)
        return article

    def __call__(self, request: Request) -> Response:
        """Answer one request."""
        found = re.fullmatch(r"/v2/articles/(\d+)(?:/versions/(\d+))?(/files)?", request.path)
        if found:
            return self._article(request, int(found[1]), found[2], bool(found[3]))
        found = re.fullmatch(r"/files/(\d+)", request.path)
        if found and int(found[1]) in self.files:
            store = _base(request).replace("127.0.0.1", "localhost")  # another host, S3's
            return Response(302, {"Location": f"{store}/store/{found[1]}?X-Amz-Signature={self.signature}"})
        found = re.fullmatch(r"/store/(\d+)", request.path)
        if found:
            if request.query.get("X-Amz-Signature") != str(self.signature):
                expired = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
                return Response(403, {"Content-Type": "application/xml"}, expired)
            path = self.files[int(found[1])]
            return file_response(request, path, hashlib.md5(path.read_bytes()).hexdigest())
        return _missing()

    def _article(self, request: Request, article_id: int, version: str | None, files: bool) -> Response:
        versions = self.articles.get(article_id, [])
        number = int(version) if version else len(versions)
        if not 1 <= number <= len(versions):
            return _missing()
        article = versions[number - 1]
        if not files:
            return json_response(article.document(_base(request)))
        page, size = int(request.query.get("page", 1)), int(request.query.get("page_size", 10))
        shown = article.files[(page - 1) * size : page * size]
        return json_response([_entry(_base(request), *file) for file in shown])


def _base(request: Request) -> str:
    return f"http://{request.headers['host']}"


def _missing() -> Response:
    return json_response({"code": 404, "message": "Entity not found"}, 404)


def _entry(base: str, file_id: int, name: str, path: Path) -> dict[str, Any]:
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return {
        "id": file_id,
        "name": name,
        "size": path.stat().st_size,
        "is_link_only": False,
        "download_url": f"{base}/files/{file_id}",
        "supplied_md5": md5,
        "computed_md5": md5,
        "mimetype": "application/octet-stream",
    }


class FigshareServer:
    """A running server: its store, its faults and log (`http.Server`), its URL."""

    def __init__(self, store: FigshareStore, http: Server) -> None:
        self.store = store
        self.http = http
        self.faults = http.faults
        self.api_url = f"{http.url}/v2"


@contextmanager
def figshare_server() -> Iterator[FigshareServer]:
    """An empty figshare on a free port."""
    store = FigshareStore()
    with Server(store) as http:
        yield FigshareServer(store, http)
