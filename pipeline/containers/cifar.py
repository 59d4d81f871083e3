"""The batches of CIFAR-10, in both of its forms: pickles of Python 2 (`data_batch_1`), and plain binary (`*.bin`).

A pickle is a program. This one is run by an interpreter that knows nothing but what these files hold: bytes, strings,
numbers, lists, dictionaries, and an array of bytes. Even numpy is only imitated, because its own way of being unpickled
trusts what it is given. Anything else is refused before it is looked up.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009, and the page of CIFAR-10.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError

SIDE = 32
IMAGE_BYTES = 3 * SIDE * SIDE
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""In the order of the labels."""


class Batch(NamedTuple):
    """Images and labels of one file."""

    images: NDArray[np.uint8]
    """[N,32,32,3] RGB."""
    labels: NDArray[np.int64]
    """[N], 0 to 9."""


def read(path: Path) -> Batch:
    """Read a batch; `.bin` says binary, every other name a pickle.

    Raises:
        LayoutError: damaged, of another data set, or a pickle that asks for more than CIFAR-10's do.
    """
    data = path.read_bytes()
    pixels, labels = _read_binary(data, path) if path.suffix == ".bin" else _read_pickle(data, path)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(CLASSES):
        raise LayoutError(f"{path}: labels run from {labels.min()} to {labels.max()}; expected 0 to 9.")
    return Batch(pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels)  # [N,H,W,3]


def _read_binary(data: bytes, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if not data or len(data) % (1 + IMAGE_BYTES):
        raise LayoutError(
            f"{path}: {len(data)} bytes; expected a multiple of {1 + IMAGE_BYTES} (label and image). Download it again."
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + IMAGE_BYTES)
    return rows[:, 1:], rows[:, 0].astype(np.int64)


def _read_pickle(data: bytes, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        _require_honest_sizes(data)
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged or hostile pickle raises whatever it likes
        raise LayoutError(
            f"{path}: cannot be read as a batch of CIFAR-10 ({type(error).__name__}: {error}). Download it again from "
            "its own page."
        ) from error
    if not isinstance(content, dict):
        raise LayoutError(f"{path}: holds a {type(content).__name__}; expected the dictionary of a CIFAR-10 batch.")
    named = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    array, labels = named.get("data"), named.get("labels")
    if not isinstance(array, _Array) or not isinstance(labels, list):
        raise LayoutError(f"{path}: holds {sorted(map(str, named))}; expected data (an array) and labels (a list).")
    n = len(labels)
    if not all(type(label) is int for label in labels) or array.shape != (n, IMAGE_BYTES) or not n:
        raise LayoutError(
            f"{path}: {array.shape} bytes of pixels and {n} labels; expected {IMAGE_BYTES} bytes for each label. "
            "Download it again."
        )
    pixels = np.frombuffer(array.data, np.uint8).reshape(array.shape, order=array.order)
    return pixels, np.array(labels, np.int64)


def _require_honest_sizes(data: bytes) -> None:
    """Refuse what room would be made for unseen: objects longer than the file, places far off in the memo."""
    for number, (operation, argument, _) in enumerate(pickletools.genops(data)):  # takes no more than is there
        if operation.name.endswith("PUT") and (argument or 0) > number:
            raise pickle.UnpicklingError(f"place {argument} in a memo of {number} objects at most")


class _Dtype:
    """Stands for numpy.dtype: bytes, and nothing else."""

    def __init__(self, code: Any = None, align: Any = False, copy: Any = False) -> None:
        if code not in (b"u1", "u1", b"|u1", "|u1", b"uint8", "uint8"):
            raise pickle.UnpicklingError(f"an array of {code!r}; expected bytes (u1)")

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which bytes have not."""


class _Array:
    """Stands for numpy.ndarray: shape and bytes as they were stored."""

    shape: tuple[int, ...] = ()
    data: bytes = b""
    order: Any = "C"

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        self.fill(shape, dtype, "F" if is_fortran else "C", data)

    def fill(self, shape: Any, dtype: Any, order: str, data: Any) -> None:
        """Take the parts, if they fit each other."""
        content = data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))
        if not isinstance(dtype, _Dtype) or not all(type(n) is int and n >= 0 for n in shape):
            raise pickle.UnpicklingError(f"an array of shape {shape!r}; expected an array of bytes")
        if math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"an array of shape {shape!r} with {len(content)} bytes")
        self.shape, self.data, self.order = tuple(shape), content, order


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _Array:
        raise pickle.UnpicklingError("an array of another type; expected numpy.ndarray")
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.fill(shape, dtype, "F" if order in ("F", b"F") else "C", data)
    return array


def _encode(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes into a pickle for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"text in {encoding!r}; expected latin1")
    return text.encode("latin1")


def _empty() -> bytes:
    """How Python 3 writes no bytes into a pickle for Python 2."""
    return b""


_KNOWN: dict[tuple[str, str], Any] = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Dtype}
_KNOWN |= {(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")}
_KNOWN |= {(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")}
_KNOWN |= {("_codecs", "encode"): _encode, ("__builtin__", "bytes"): _empty}


class _Unpickler(pickle._Unpickler):  # the one written in Python: a hostile index cannot make its memo grow
    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[..., Any]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the file stands for."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR-10 needs: refused")
        return _KNOWN[module, name]

    def load_build(self) -> None:
        """Set the state of the stand-ins, and of nothing else."""
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) not in (_Array, _Dtype):
            raise pickle.UnpicklingError(f"it changes a {type(target).__name__}: refused")
        target.__setstate__(state)

    dispatch[pickle.BUILD[0]] = load_build
