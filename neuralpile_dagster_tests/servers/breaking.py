"""How a test server breaks a connection, or makes it slow."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import BinaryIO

from neuralpile_dagster_tests.servers.bodies import FilePart, blocks, length_of

TRICKLED_BYTES = 200
TRICKLE_S = 0.05


def break_off(connection: socket.socket, kind: str, stopping: threading.Event) -> None:
    """Be silent until ``stopping`` (``hang...``), reset the connection (``reset...``), or end it."""
    if kind.startswith("hang"):
        stopping.wait(60.0)
    elif kind.startswith("reset"):
        # an unread timeout of 0 makes close() send RST instead of FIN
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        return
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def trickle(target: BinaryIO, body: bytes | FilePart, stopping: threading.Event) -> None:
    """Send the beginning of a body one byte at a time."""
    for block in blocks(body, min(TRICKLED_BYTES, length_of(body))):
        for byte in block:
            target.write(bytes([byte]))
            if stopping.wait(TRICKLE_S):
                return
