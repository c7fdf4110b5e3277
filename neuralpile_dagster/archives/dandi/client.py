"""HTTP of the DANDI client with timeouts and retries, and its errors translated.

`dandi` 0.81 sets no timeouts, does not retry 408, 520 or broken bodies, and
waits a fixed 53 s in all. Its `requests` session takes adapters: here is ours. What is requested belongs to
`archive`, the policy to `net.retry`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema

from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable
from neuralpile_dagster.net.errors import host, remedy_for
from neuralpile_dagster.net.responses import parse_json, read_body
from neuralpile_dagster.net.retry import RetryPolicy, network_errors, retry_request, status_failed, worth_retrying


class RetryAdapter(HTTPAdapter):
    """Send requests with retries until the whole response is read; the client above retries nothing more.

    Raises `ArchiveUnavailable`, which the client's own retries let through.
    """

    def __init__(self, limits: RetryPolicy) -> None:
        super().__init__(max_retries=0)
        self._limits = limits

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,
        cert: str | tuple[str, str] | None = None,
        proxies: dict[str, str] | None = None,
    ) -> requests.Response:
        """Send a request; see `requests.adapters.HTTPAdapter.send`."""
        limits = self._limits
        waits = timeout or (limits.connect_timeout_s, limits.read_timeout_s)

        url = request.url or ""
        what = f"the API at {host(url)}"

        def attempt() -> requests.Response:
            with network_errors(what, url):
                response = HTTPAdapter.send(self, request, True, waits, verify, cert, proxies)
                if not stream:
                    _take_body(what, response, limits)
            if worth_retrying(response.status_code):
                response.close()
                raise status_failed(response.status_code, response.headers)
            if not stream and response.status_code == 200 and "json" in response.headers.get("Content-Type", ""):
                parse_json(what, response.content)
            return response

        return retry_request(attempt, what, url, limits)


def _take_body(what: str, response: requests.Response, limits: RetryPolicy) -> None:
    """Read the body here, where one that breaks off, trickles or does not end is noticed."""
    try:
        response._content = read_body(what, response.raw, limits)
        response._content_consumed = True
    except BaseException:
        response.close()
        raise
    response.raw.release_conn()


@contextmanager
def explaining(what: str, api_url: str, has_key: bool) -> Iterator[None]:
    """Turn what the client raises inside the block into `ArchiveError` and `ArchiveUnavailable`.

    ``what`` names what is asked for; ``has_key`` says whether an API key was sent.
    """
    try:
        yield
    except requests.HTTPError as error:
        raise _refused(what, api_url, error, has_key) from error
    except ArchiveUnavailable as error:  # of `RetryAdapter`, which does not know what was asked for
        raise _unavailable(what, api_url, error.found) from error
    except (InvalidURL, InvalidSchema, MissingSchema) as error:  # whose texts repeat the URL
        raise _invalid(what, api_url, f"invalid URL ({type(error).__name__})") from None
    except requests.RequestException as error:
        raise _unavailable(what, api_url, f"{type(error).__name__}: {error}") from error
    except RecursionError:
        raise _invalid(what, api_url, "JSON that is nested too deeply") from None
    # pydantic's ValidationError is a ValueError; the client asserts that a page is a list
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise _invalid(what, api_url, found) from error


def _invalid(what: str, api_url: str, found: str) -> ArchiveError:
    return ArchiveError(
        f"{what}: the response of {api_url} was not understood",
        found=found,
        expected="a document of the DANDI API",
        remedy="check DANDI_API_URL; upgrade dandi if the server is newer",
    )


def _unavailable(what: str, api_url: str, found: str) -> ArchiveUnavailable:
    return ArchiveUnavailable(
        f"{what} could not be read from {api_url}",
        found=found,
        expected="a response",
        remedy=remedy_for(found, "try again later; check DANDI_API_URL and this machine's network if it lasts"),
    )


def _refused(what: str, api_url: str, error: requests.HTTPError, has_key: bool) -> ArchiveError:
    status = 404 if error.response is None else error.response.status_code
    if status in (401, 403):
        return ArchiveError(
            f"access to {what} was refused by {api_url}",
            found=f"HTTP status {status}, {'with' if has_key else 'without'} an API key",
            expected="a public dandiset, or an API key with access to it",
            remedy="set DANDI_API_KEY to a key of an owner of the dandiset",
        )
    return ArchiveError(
        f"{what} is not on {api_url}" if status == 404 else f"{what} cannot be read from {api_url}",
        found=f"HTTP status {status}",
        remedy="check the id and version in the catalog; if files are gone, materialize the manifest again",
    )
