"""Files over ranged requests: read to the end with few requests, and no more memory than there are bytes."""

from __future__ import annotations

import io

import pytest

from neuralpile_dagster.errors import HubUnavailable
from neuralpile_dagster.net.range_file import RangeFile


class Answering(RangeFile):
    """A server that says ``size`` bytes, sends at most ``most`` a request, and has only ``content``."""

    def __init__(self, content: bytes, size: int, most: int) -> None:
        super().__init__(size)
        self.content, self.most, self.requests = content, most, 0

    def fill(self, start: int, target: memoryview) -> int:
        self.requests += 1
        found = self.content[start : start + min(self.most, len(target))]
        if not found:
            raise HubUnavailable("the server sent less than it said")
        target[: len(found)] = found
        return len(found)


@pytest.mark.parametrize(("most", "requests"), [(1 << 24, 2), (1 << 20, 18)])
def test_a_file_is_read_to_its_end_with_few_requests(most: int, requests: int) -> None:
    content = bytes(range(256)) * (17 << 12) + b"end"
    file = Answering(content, len(content), most)
    assert file.readall() == content and file.requests == requests
    assert file.readall() == b"" and file.requests == requests
    file.seek(-3, io.SEEK_END)
    assert io.BufferedReader(file).read() == b"end"


@pytest.mark.parametrize("size", [10**13, 1 << 62, 1 << 70])
def test_the_size_that_a_server_says_takes_no_memory(size: int) -> None:
    with pytest.raises(HubUnavailable):
        Answering(b"some", size, 4).readall()
