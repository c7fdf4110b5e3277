"""Send alerts to a webhook (Slack and others), by mail, or both, as configured by the environment.

Addresses and passwords are secrets: they are read when something is sent, and appear in no error. When to send
something belongs in `orchestration.sensors`.
"""

from __future__ import annotations

import os
import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from neuralpile_dagster.errors import ConfigurationError, NeuralPileError, TransientError

WEBHOOK, MAIL = "NEURALPILE_ALERT_WEBHOOK", "NEURALPILE_ALERT_MAIL"
"""Variables: a URL that takes JSON ``{"text": ...}``; ``smtp://user:password@host:587/?from=a@b.org&to=c@d.org``."""
TIMEOUT_S = 10.0


def is_configured() -> bool:
    """Whether alerts go anywhere."""
    return bool(os.environ.get(WEBHOOK) or os.environ.get(MAIL))


def send_alert(subject: str, text: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Send a text everywhere that the environment names.

    Parameters
    ----------
    subject : str
        One line.
    text : str
    environment : mapping of str to str

    Returns
    -------
    list of str
        Where it was sent, in words: ``["webhook", "mail"]``.

    Raises
    ------
    ConfigurationError
        A variable is invalid.
    TransientError
        A server could not be reached or refused it. The others got it all the same.
    """
    sent, errors = [], []
    for name, variable, send in (("webhook", WEBHOOK, _post), ("mail", MAIL, _mail)):
        if address := environment.get(variable):
            try:
                send(address, subject, text)
            except NeuralPileError as error:
                errors.append(error)
            else:
                sent.append(name)
    if errors:
        raise errors[0]
    return sent


def _post(address: str, subject: str, text: str) -> None:
    import urllib3  # the code location asks whether alerts go anywhere, and sends none

    from neuralpile_dagster.net.http import open_pool
    from neuralpile_dagster.net.retry import RetryPolicy

    url = _split(WEBHOOK, address, ("https", "http"))
    limits = RetryPolicy(attempts=3, connect_timeout_s=TIMEOUT_S, read_timeout_s=TIMEOUT_S)
    retries = urllib3.Retry(
        total=limits.attempts - 1,
        redirect=False,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,  # POST too: an alert that comes twice does no harm
        backoff_factor=0.5,
        respect_retry_after_header=False,  # it may name an hour, and a sensor has a minute
        raise_on_status=False,
    )
    try:
        with open_pool(address, limits, connections=1) as pool:
            body = {"text": f"*{subject}*\n{text}"}
            status = pool.request("POST", address, json=body, retries=retries, redirect=False).status
    except urllib3.exceptions.HTTPError as error:
        raise _undelivered("webhook", url, type(error).__name__) from None  # its text has the address in it
    if not 200 <= status < 300:
        raise _undelivered("webhook", url, f"HTTP status {status}")


def _mail(address: str, subject: str, text: str) -> None:
    url = _split(MAIL, address, ("smtps", "smtp"))
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    if not (query.get("from") and query.get("to")):
        raise ConfigurationError(
            f"{MAIL} is invalid",
            found="no sender or no recipient",
            expected="smtp://user:password@host:587/?from=pile@lab.org&to=me@lab.org,you@lab.org",
        )
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = f"[neuralpile] {subject}", query["from"], query["to"]
    message.set_content(text)
    try:
        with _connected(url) as server:
            server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        raise _undelivered("mail", url, type(error).__name__) from None


def _connected(url: SplitResult) -> smtplib.SMTP:
    """A session with a mail server, encrypted where the server can; a password is never sent in the clear."""
    host, context = url.hostname or "", ssl.create_default_context()
    if url.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, url.port or 465, timeout=TIMEOUT_S, context=context)
    else:
        server = smtplib.SMTP(host, url.port or 587, timeout=TIMEOUT_S)
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=context)
        elif url.password:
            server.close()
            raise ConfigurationError(
                f"{MAIL} has a password, and {host} offers no encryption",
                expected="a mail server with STARTTLS, or smtps://",
                remedy="use another port or server, or leave out user and password",
            )
    if url.username:
        server.login(unquote(url.username), unquote(url.password or ""))
    return server


def _split(variable: str, address: str, schemes: tuple[str, ...]) -> SplitResult:
    """The parts of an address; raises `ConfigurationError`, which does not show it."""
    try:
        url = urlsplit(address)
        url.port  # noqa: B018 - raises when it is no number
    except ValueError:
        url = SplitResult("", "", "", "", "")
    if url.scheme not in schemes or not url.hostname:
        raise ConfigurationError(
            f"{variable} is invalid", expected=f"a URL that begins with {schemes[0]}://, with a host"
        )
    return url


def _undelivered(what: str, url: SplitResult, found: str) -> TransientError:
    variable = WEBHOOK if what == "webhook" else MAIL
    return TransientError(
        f"the {what} at {url.hostname} did not accept an alert",
        found=found,
        remedy=f"check {variable} and the server; the failed run is in the list of runs",
    )
