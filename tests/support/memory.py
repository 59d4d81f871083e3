"""The most memory that this process has taken, without what the process that started it had taken before."""

from pathlib import Path


def peak_bytes() -> int:
    """High-water mark of this process' own address space in bytes.

    `ru_maxrss` will not do: across fork and exec it keeps the mark of the parent, and a test worker may be large.

    Source: proc(5), VmHWM.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
