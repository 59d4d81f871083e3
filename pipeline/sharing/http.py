"""Bodies of HTTP answers as streams: as many bytes as are asked for, whatever a server sends, and never unpacked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.base.errors import ShardSetError

STALL_S = 60.0
"""Seconds without a byte after which a server counts as gone."""


def open_files(protocol: str) -> Any:
    """Return the file system of fsspec for `http` or `https`; only `stream` may read from it."""
    import aiohttp
    import fsspec

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=STALL_S, sock_read=STALL_S)
    return fsspec.filesystem(protocol, client_kwargs={"auto_decompress": False, "timeout": timeout})


def stream(files: Any, address: str, start: int, stop: int, *, shown: str) -> Iterator[bytes]:
    """Yield bytes start to stop of a file as they arrive; fewer where it ends before.

    From a server that knows no ranges the whole file comes, of which the beginning is passed over. `shown` is the
    address without credentials.

    Raises:
        FileNotFoundError: no such file.
        ShardSetError: the body is packed, which nobody asked for.
        OSError: or another error of aiohttp: the connection fails, or nothing comes for `STALL_S`.
    """
    from fsspec.asyn import sync

    # The limits of aiohttp hold while its thread is alive; the longer one holds whatever becomes of that.
    answer = sync(files.loop, _request, files, address, start, stop, shown, timeout=3 * STALL_S)
    try:
        position = start if answer.status == 206 else 0
        while position < stop and (part := sync(files.loop, answer.content.read, stop - position, timeout=3 * STALL_S)):
            position += len(part)
            if fresh := part[max(0, len(part) - (position - start)) :]:
                yield fresh
    finally:
        files.loop.call_soon_threadsafe(answer.close)


async def _request(files: Any, address: str, start: int, stop: int, shown: str) -> Any:
    """Send a request; returns the answer, of whose body nothing has been read."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-{stop - 1}"} if start else {})
    session = await files.set_session()
    answer = await session.get(files.encode_url(address), headers=headers)
    try:
        files._raise_not_found_for_status(answer, address)
        if (encoding := answer.headers.get("Content-Encoding", "identity").lower()) != "identity":
            raise ShardSetError(
                f"{shown}: the server sends it packed ({show(encoding)}); expected the file as it is. Have it send "
                "files of shard sets without Content-Encoding."
            )
    except BaseException:
        answer.close()
        raise
    return answer
