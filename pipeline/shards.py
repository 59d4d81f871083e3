"""Event shards: samples as members of a WebDataset tar or rows of an HDF5 file, and the index beside them.

Axes: a sample is [T,P,H,W] (time, polarity, height, width).
The index holds where the raw numbers of every sample lie in its shard, so both containers are read the same way: one
`pread` and one checksum a sample, without a parser. Bytes depend on the samples alone (no times, owners or hosts).
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.files import replacing, write_bytes

EXTENSION = {"webdataset": ".tar", "hdf5": ".h5"}
INDEX_EXTENSION = ".idx.npy"
MEMBERS = ("cls", "frames.npy", "json")
"""Members of a sample in a tar, in their order."""


@dataclass(frozen=True)
class Sample:
    """One recording as frames, ready to be stored.

    Args:
        key: `<split>-<class index>-<stem>`.
        label: class index.
        frames: [T,P,H,W].
        metadata: JSON text: source recording, events, duration, static partner.
    """

    key: str
    label: int
    frames: NDArray[Any]
    metadata: str


def index_dtype(key_bytes: int) -> np.dtype[Any]:
    """Type of an index row: offset and length of the raw numbers in bytes, their crc32, label, key."""
    return np.dtype(
        [("offset", "<u8"), ("length", "<u8"), ("crc32", "<u4"), ("label", "<i4"), ("key", f"S{max(1, key_bytes)}")]
    )


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The header that precedes the raw numbers of an array of this shape in an .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return file.getvalue()


def write_shard(
    path: Path, samples: Iterable[Sample], *, shape: tuple[int, ...], dtype: np.dtype[Any], key_bytes: int
) -> NDArray[Any]:
    """Write one shard and its index, each whole or not at all, the index last.

    Args:
        path: `.tar` or `.h5` file; the index gets the ending `.idx.npy`.
        samples: in the order in which they are stored.
        shape: (T,P,H,W) of every sample.
        dtype: stored type, little-endian.
        key_bytes: longest key of the whole set, so that all indexes have one type.

    Returns:
        The index, a structured array of `index_dtype`.
    """
    with replacing(path) as partial:
        write = _write_tar if path.suffix == EXTENSION["webdataset"] else _write_hdf5
        rows = write(partial, list(samples), shape, dtype)
    index = np.array(rows, dtype=index_dtype(key_bytes))
    file = io.BytesIO()
    np.lib.format.write_array(file, index, allow_pickle=False)
    write_bytes(index_path(path), file.getvalue())
    return index


def index_path(shard: Path) -> Path:
    """The index file of a shard file."""
    return shard.with_name(shard.stem + INDEX_EXTENSION)


def _row(sample: Sample, offset: int) -> tuple[int, int, int, int, bytes]:
    return (offset, sample.frames.nbytes, zlib.crc32(sample.frames.data), sample.label, sample.key.encode())


def _write_tar(
    path: Path, samples: list[Sample], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> list[tuple[int, int, int, int, bytes]]:
    header = npy_header(shape, dtype)
    rows = []
    # The standard library's writer: webdataset's own TarWriter makes the same archive, but importing it imports torch.
    with open(path, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            contents = (str(sample.label).encode(), header + sample.frames.tobytes(), sample.metadata.encode())
            for member, content in zip(MEMBERS, contents, strict=True):
                info = tarfile.TarInfo(f"{sample.key}.{member}")
                info.size, info.mode, info.mtime = len(content), 0o444, 0
                tar.addfile(info, io.BytesIO(content))
                if member == "frames.npy":
                    end = file.tell()  # after the padding to whole blocks
                    start = end - -len(content) // tarfile.BLOCKSIZE * -tarfile.BLOCKSIZE
                    rows.append(_row(sample, start + len(header)))
    return rows


def _write_hdf5(
    path: Path, samples: list[Sample], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> list[tuple[int, int, int, int, bytes]]:
    import h5py

    rows = []
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        count = len(samples)
        frames = file.create_dataset(
            "frames", (count, *shape), dtype, chunks=(1, *shape) if count else None, fletcher32=count > 0
        )
        for i, sample in enumerate(samples):
            frames[i] = sample.frames
        for name, values in (
            ("label", np.array([sample.label for sample in samples], "<i4")),
            ("key", np.array([sample.key.encode() for sample in samples], "S")),
            ("json", np.array([sample.metadata.encode() for sample in samples], "S")),
        ):
            if count:
                file.create_dataset(name, data=values, chunks=values.shape, fletcher32=True)
        file.flush()
        for i, sample in enumerate(samples):
            rows.append(_row(sample, frames.id.get_chunk_info(i).byte_offset))
    return rows
