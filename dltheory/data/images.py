"""Real images: the digits that scikit-learn brings along, and the files of MNIST and CIFAR-10 that a user has.

Nothing is downloaded. This is the one module of the library that reads files: the formats belong beside the data.
"""

from __future__ import annotations

import codecs
import gzip
import io
import math
import os
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from dltheory.data.synthetic import Dataset

__all__ = ["Cifar10", "digits", "load_cifar10", "load_idx"]

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CIFAR_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_CIFAR_FILES = tuple(batch + suffix for batch in _CIFAR_BATCHES for suffix in ("", ".bin"))
_CIFAR_IMAGE = (3, 32, 32)


class Cifar10(NamedTuple):
    """The two parts of CIFAR-10, with images [n, 32, 32, 3] and classes [n], NumPy arrays of bytes.

    Attributes:
        train: 50 000 examples.
        test: 10 000 examples.
    """

    train: Dataset
    test: Dataset


def digits(dtype: DTypeLike = float) -> Dataset:
    """1797 images of handwritten digits, the test set of the UCI collection, as scikit-learn brings them along.

    Args:
        dtype: of the images; by default JAX's default for floating-point numbers.

    Returns:
        Grey values in [0, 1], shape [1797, 8, 8, 1], and the digits, shape [1797].

    Raises:
        ImportError: if scikit-learn is not installed.

    A helper. Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository.

    >>> from dltheory import data
    >>> x, y = data.digits()
    >>> x.shape, y[:5]
    ((1797, 8, 8, 1), Array([0, 1, 2, 3, 4], dtype=int32))
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("digits() takes its images from scikit-learn: pip install scikit-learn") from error
    grey, target = load_digits(return_X_y=True)
    return Dataset(x=jnp.asarray(grey.reshape(-1, 8, 8, 1) / 16, dtype), y=jnp.asarray(target, int))


def load_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a file in the IDX format, such as MNIST's ``train-images-idx3-ubyte``, compressed by gzip or not.

    Args:
        path: the file.

    Returns:
        The array it holds, in host memory: of MNIST's images [n, 28, 28] bytes, of its labels [n] bytes.

    Raises:
        ValueError: if the file is not in the format, or is cut short.
        OSError: if the file cannot be read.

    A helper. Source: LeCun, Cortes and Burges 1998, The MNIST database of handwritten digits, file formats.

    >>> import pathlib, tempfile
    >>> from dltheory import data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "labels-idx1-ubyte")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     data.load_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    content = _unzipped(Path(path))
    known = len(content) >= 4 and content[:2] == b"\0\0" and content[2] in _IDX_TYPES
    if not known:
        raise ValueError(f"`path`: {path} is not an IDX file, it starts with {content[:4].hex(' ') or 'nothing'}")
    dtype, num_axes = np.dtype(_IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * num_axes
    if len(content) < start:
        raise ValueError(f"`path`: {path} is cut short within its header of {start} bytes")
    shape = tuple(np.frombuffer(content, ">u4", num_axes, offset=4).tolist())
    wanted, got = math.prod(shape) * dtype.itemsize, len(content) - start
    if wanted != got:
        fault = "is cut short" if got < wanted else "has bytes left over"
        raise ValueError(f"`path`: {path} {fault}: its header announces {wanted} bytes, shape {list(shape)}, got {got}")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def load_cifar10(path: str | os.PathLike[str]) -> Cifar10:
    """Reads CIFAR-10 as its authors distribute it, in the binary or the Python version.

    The Python version is pickled. Only the plain containers and arrays that it consists of are unpickled: a file that
    asks for anything else is refused, and no code in it runs.

    Args:
        path: the archive ``cifar-10-binary.tar.gz`` or ``cifar-10-python.tar.gz``, or the folder unpacked from it, or
            the folder that holds that folder.

    Returns:
        Training and test examples, in host memory, in the order of the files.

    Raises:
        ValueError: if files are missing, not in the format, or cut short.
        OSError: if a file cannot be read.

    A helper. Source: Krizhevsky 2009, Learning multiple layers of features from tiny images.

    >>> from dltheory import data
    >>> data.load_cifar10("cifar-10-batches-bin")
    Traceback (most recent call last):
    ...
    FileNotFoundError: [Errno 2] No such file or directory: 'cifar-10-batches-bin'
    """
    files = _cifar_files(Path(path))
    suffix = ".bin" if any(name.endswith(".bin") for name in files) else ""
    names = [batch + suffix for batch in _CIFAR_BATCHES]
    if missing := [name for name in names if name not in files]:
        raise ValueError(f"`path`: {path} lacks {', '.join(missing)} of CIFAR-10")
    *train, test = [_cifar_batch(f"{path}/{name}", files[name]) for name in names]
    return Cifar10(train=jax.tree.map(lambda *parts: np.concatenate(parts), *train), test=test)


def _unzipped(path: Path) -> bytes:
    content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"`path`: {path} is a damaged gzip file: {error}") from error


def _cifar_files(path: Path) -> dict[str, bytes]:
    """File name -> content, of the files that are named like batches, pickled or binary (``.bin``)."""
    if path.is_dir():
        files = [file for name in _CIFAR_FILES for pattern in (name, f"*/{name}") for file in path.glob(pattern)]
        return {file.name: file.read_bytes() for file in files}
    found = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name in _CIFAR_FILES and (stream := archive.extractfile(member)):
                    found[name] = stream.read()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"`path`: {path} is neither a folder nor an intact archive: {error}") from error
    return found


def _cifar_batch(name: str, content: bytes) -> Dataset:
    size = math.prod(_CIFAR_IMAGE)
    if not name.endswith(".bin"):
        pixels, labels = _unpickled_batch(name, content)
    else:
        if not content or len(content) % (1 + size):
            fault = f"{len(content)} bytes are no multiple of {1 + size}"
            raise ValueError(f"`path`: {name} is cut short or foreign: {fault}")
        records = np.frombuffer(content, np.uint8).reshape(-1, 1 + size)
        labels, pixels = records[:, 0], records[:, 1:]
    if labels.max(initial=0) > 9:
        raise ValueError(f"`path`: {name} is foreign: it has a label {labels.max()}, beyond the ten classes")
    images = pixels.reshape(-1, *_CIFAR_IMAGE).transpose(0, 2, 3, 1)  # channels last, as Flax has them
    return Dataset(x=np.ascontiguousarray(images), y=labels.copy())  # pyright: ignore[reportArgumentType]


def _unpickled_batch(name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except Exception as error:  # an unpickler fails on foreign bytes in any way it likes
        raise ValueError(f"`path`: {name} is cut short or foreign: {error}") from error
    fits = pixels.dtype == np.uint8 and pixels.shape == (*labels.shape, math.prod(_CIFAR_IMAGE))
    if not fits or labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        fault = f"data {pixels.dtype}{list(pixels.shape)}, labels {labels.dtype}{list(labels.shape)}"
        raise ValueError(f"`path`: {name} is foreign: {fault}")
    return pixels, labels.astype(np.uint8)


class _PlainUnpickler(pickle.Unpickler):
    """Unpickles arrays, and nothing that could run code."""

    def find_class(self, module_name: str, global_name: str) -> object:
        if (module_name, global_name) not in _PLAIN:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} has no place in it")
        return _PLAIN[module_name, global_name]


def _dtype(name: Any, align: int = 0, copy: int = 0) -> np.dtype:
    """A dtype as old NumPy pickles it, with integers for truth values."""
    return np.dtype(name, align=bool(align), copy=bool(copy))


_PLAIN = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.ndarray.__new__,
    ("numpy._core.multiarray", "_reconstruct"): np.ndarray.__new__,  # its home since NumPy 2
    ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes for Python 2
}
