"""The most memory that this process has taken, without what the process that started it had taken before."""

import resource
from contextlib import contextmanager
from pathlib import Path


def peak_bytes() -> int:
    """High-water mark of this process' own address space in bytes.

    `ru_maxrss` will not do: across fork and exec it keeps the mark of the parent, and a test worker may be large.

    Source: proc(5), VmHWM.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@contextmanager
def limited(more: int):
    """Let this process map so many bytes more than it has mapped now, and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
