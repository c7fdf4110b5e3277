"""figshare for tests: the public part of its API that we use, and its downloads (a redirect to a signed URL)."""

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

    def document(self) -> dict[str, Any]:
        """As the API gives it (without its files: they are listed page by page)."""
        return {
            "id": self.article_id,
            "version": self.version,
            "title": "made for tests",
            "modified_date": f"2019-03-0{self.version}T12:00:00Z",
            "authors": [{"id": 1, "full_name": "Ada Tester"}, {"id": 2, "full_name": "Bo Tester"}],
            "license": {"value": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"},
            "citation": "Tester, Ada (2019). Made for tests. figshare.",
            "doi": f"10.6084/m9.figshare.{self.article_id}.v{self.version}",
            "url_public_html": f"https://figshare.com/articles/{self.article_id}/{self.version}",
            **self.fields,
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
            return Response(302, {"Location": f"/store/{found[1]}?X-Amz-Signature={self.signature}"})
        found = re.fullmatch(r"/store/(\d+)", request.path)
        if found:
            if request.query.get("X-Amz-Signature") != str(self.signature):
                return Response(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
            path = self.files[int(found[1])]
            return file_response(request, path, hashlib.md5(path.read_bytes()).hexdigest())
        return json_response({"message": "Entity not found", "code": "EntityNotFound"}, 404)

    def _article(self, request: Request, article_id: int, version: str | None, files: bool) -> Response:
        versions = self.articles.get(article_id, [])
        number = int(version) if version else len(versions)
        if not 1 <= number <= len(versions):
            return json_response({"message": "Entity not found", "code": "EntityNotFound"}, 404)
        article = versions[number - 1]
        if not files:
            return json_response(article.document())
        page, size = int(request.query.get("page", 1)), int(request.query.get("page_size", 10))
        shown = article.files[(page - 1) * size : page * size]
        return json_response([_entry(request, *file) for file in shown])


def _entry(request: Request, file_id: int, name: str, path: Path) -> dict[str, Any]:
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return {
        "id": file_id,
        "name": name,
        "size": path.stat().st_size,
        "is_link_only": False,
        "download_url": f"http://{request.headers['host']}/files/{file_id}",
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
