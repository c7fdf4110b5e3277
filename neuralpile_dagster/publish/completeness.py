"""The rule for publishing a dataset while sessions are missing.

Which sessions are done or failed is read in `ledger`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from math import ceil

from neuralpile_dagster.errors import HubError
from neuralpile_dagster.recordings.manifest import Manifest

NOT_BUILT = "not built yet"
VANISHED = "no longer listed by the archive, and not built before"
_NAMED = 10


def publishable(
    manifest: Manifest, done: Collection[str], failed: Mapping[str, str], min_session_share: float = 1.0
) -> dict[str, str]:
    """Sessions of the manifest that a publication will lack, with reasons.

    A session that vanished from the archive can no longer be built: it is
    named, but does not count against the share. One that was built before it
    vanished is published like any other.

    Parameters
    ----------
    manifest : Manifest
    done : collection of str
        Keys of the sessions whose counts are finished.
    failed : mapping of str to str
        Why sessions failed, by key.
    min_session_share : float
        Least share of the sessions that must be done, 0 to 1.

    Returns
    -------
    dict of str to str
        Reason by key, in the manifest's order.

    Raises
    ------
    HubError
        The share is not met, or no session is done; names the missing ones.
    """
    missing = {
        session.key: failed.get(session.key) or (VANISHED if session.vanished else NOT_BUILT)
        for session in manifest.sessions
        if session.key not in done
    }
    present, due, needed = completeness(manifest, done, min_session_share)
    if present < needed:
        raise HubError(
            f"{manifest.dataset} is not complete enough to publish",
            found=f"{present:,} of {due:,} sessions done; missing: {_name(missing)}",
            expected=f"at least {needed:,} (min_session_share {min_session_share:g})",
            remedy=f"build the missing sessions (neuralpile build {manifest.dataset}), or publish without them (the "
            "card names them): neuralpile build with --allow-missing or --min-session-share SHARE, or "
            "min_session_share in the run configuration",
        )
    return missing


def completeness(manifest: Manifest, done: Collection[str], min_session_share: float) -> tuple[int, int, int]:
    """Numbers of sessions that are done, that count, and that a publication needs; see `publishable`."""
    due = sum(session.key in done or not session.vanished for session in manifest.sessions)
    present = sum(session.key in done for session in manifest.sessions)
    # compared as counts: 0.9 * 10 must ask for 9 sessions, whatever binary fractions make of it
    return present, due, max(1, _ceil_share(min_session_share, due))


def _ceil_share(share: float, count: int) -> int:
    return ceil(Fraction(str(share)) * count)


def _name(missing: Mapping[str, str]) -> str:
    named = [f"{key} ({reason})" for key, reason in list(missing.items())[:_NAMED]]
    more = len(missing) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "") if named else "none is listed"
