"""Explains a batch that does not fit into memory: tries smaller ones until one fits."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from spikebridge.train.errors import DeviceMemoryError

log = logging.getLogger(__name__)


SHORT = (
    "DefaultCPUAllocator",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
    "CUDA error: out of memory",
)
"""What is in the text of a RuntimeError that says so: for these there is no class."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or one it follows, says that memory is short: the device's or the processor's.

    A recording that breaks off for want of memory ends in an error of its own, which only follows the first.
    """
    cause: BaseException | None = error
    while cause is not None:
        short = isinstance(cause, torch.OutOfMemoryError | MemoryError)
        if short or (isinstance(cause, RuntimeError) and any(text in str(cause) for text in SHORT)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def explain_out_of_memory(
    attempt: Callable[[int], None] | None, *, samples: int, parts: int, step: int
) -> DeviceMemoryError:
    """Return the error for a step that ran out of memory, with a batch size that fits.

    The size is tried, and still an estimate: another step may need more. Call it after the `except` block: until
    then the traceback keeps the tensors of the failed step alive.

    Args:
        attempt: forward and backward pass of so many samples, without an update, which may run out of memory again;
            None where it cannot be tried (several processes must act together) and a half is recommended.
        samples: of one update.
        parts: that an update is computed in (recipe key `accumulate`).
        step: 0-based, over the run.
    """
    problem = f"step {step}: out of memory with {-(-samples // parts)} samples at once"
    tried = parts
    while attempt is not None and tried < samples:
        tried = min(2 * tried, samples)
        size = -(-samples // tried)
        try:
            attempt(size)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        else:
            fits = True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if fits:
            return DeviceMemoryError(
                f"{problem}; {size} fit (tried). Take --set accumulate={tried}, which keeps the update of {samples} "
                f"samples (statistics and alignment are then those of {size}), or --set batch_size={size}; "
                "and a new run folder, as this is another recipe"
            )
    if attempt is not None:
        return DeviceMemoryError(
            f"{problem}, and a single one does not fit either; take a smaller width or another device"
        )
    return DeviceMemoryError(
        f"{problem}; try half of it: --set accumulate={2 * parts}, which keeps the update of {samples} samples, or "
        f"--set batch_size={max(1, samples // 2)}; and a new run folder, as this is another recipe"
    )
