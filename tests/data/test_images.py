"""Files in the formats of MNIST and CIFAR-10, written here byte by byte, intact and damaged."""

import gzip
import pickle
import struct
import tarfile

import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import data
from dltheory.data import images

RNG = np.random.default_rng(0)
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def idx(array: np.ndarray) -> bytes:
    """The file format that MNIST's page describes: magic number, sizes, entries, all big-endian."""
    code = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}[array.dtype.str[1:]]
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 28, 28)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_files_are_read(tmp_path, dtype, shape, pack):
    array = RNG.integers(0, 100, size=shape).astype(dtype)
    (tmp_path / "file").write_bytes(pack(idx(array)))
    read = images.load_idx(tmp_path / "file")
    assert read.dtype == array.dtype
    assert read.flags.writeable
    np.testing.assert_array_equal(read, array)


IMAGES = idx(RNG.integers(0, 256, size=(3, 4, 4)).astype("u1"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file, it starts with nothing"),
        (b"\x89PNG\r\n", "is not an IDX file, it starts with 89 50 4e 47"),
        (b"\0\0\x07\x01\0\0\0\0", "is not an IDX file, it starts with 00 00 07 01"),
        (IMAGES[:10], "is cut short within its header of 16 bytes"),
        (IMAGES[:-1], r"is cut short: its header announces 48 bytes, shape \[3, 4, 4\], got 47"),
        (IMAGES + b"\0", r"has bytes left over: its header announces 48 bytes, shape \[3, 4, 4\], got 49"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "is cut short: its header announces 79228162458924105385300197375 bytes"),
        (gzip.compress(IMAGES, mtime=0)[:-12], "is a damaged gzip file"),
        (gzip.compress(IMAGES, mtime=0)[:-8] + bytes(8), "is a damaged gzip file: CRC check failed"),
        (b"\x1f\x8b" + IMAGES, "is a damaged gzip file"),
    ],
)
def test_damaged_and_foreign_idx_files_are_refused(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=f"`path`: {tmp_path / 'file'} {message}"):
        data.load_idx(tmp_path / "file")


def test_missing_files_are_missing(tmp_path):
    for load in (data.load_idx, data.load_cifar10):
        with pytest.raises(FileNotFoundError):
            load(str(tmp_path / "absent"))


def examples(seed: int, n: int = 4):
    """Pixels in the order of the files, channel by channel and row by row, and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, size=(n, 3072)).astype("u1"), rng.integers(0, 10, size=n)


def binary(pixels, labels) -> bytes:
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(pixels, labels, strict=True))


def pickled(pixels, labels) -> bytes:
    return pickle.dumps({b"batch_label": b"testing", b"labels": labels.tolist(), b"data": pixels}, protocol=2)


def pickled_by_python_2(pixels, labels) -> bytes:
    """The opcodes of the real files, which Python 2 and the NumPy of 2009 wrote."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    dtype = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
    entries = b"T" + struct.pack("<i", pixels.size) + pixels.tobytes()
    state = b"(I1\n(I%d\nI3072\nt" % len(pixels) + dtype + b"I00\n" + entries + b"tb"
    numbers = b"(l" + b"".join(b"I%d\na" % label for label in labels)
    return b"\x80\x02}(S'data'\n" + array + state + b"S'labels'\n" + numbers + b"u."


WRITERS = {"binary": (binary, ".bin"), "python": (pickled, ""), "python 2": (pickled_by_python_2, "")}


def write(folder, version: str = "binary"):
    """The six files of one version, in `folder`."""
    writer, suffix = WRITERS[version]
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(BATCHES):
        (folder / (name + suffix)).write_bytes(writer(*examples(seed)))
    (folder / "readme.html").write_text("none of the data")
    return folder


@pytest.mark.parametrize("version", WRITERS)
@pytest.mark.parametrize("place", ["folder", "above", "archive", "compressed"])
def test_cifar10_is_read_as_it_is_distributed(tmp_path, version, place):
    path = folder = write(tmp_path / "cifar-10-batches", version)
    if place == "above":
        path = tmp_path
    elif place in ("archive", "compressed"):
        path = tmp_path / "cifar-10.tar"
        with tarfile.open(path, "w:gz" if place == "compressed" else "w") as archive:
            archive.add(folder, arcname=folder.name)

    train, test = data.load_cifar10(path)
    pixels, labels = zip(*map(examples, range(6)), strict=True)
    assert train.x.shape == (20, 32, 32, 3)
    assert train.x.dtype == test.x.dtype == train.y.dtype == test.y.dtype == np.uint8
    np.testing.assert_array_equal(train.y, np.concatenate(labels[:5]))
    np.testing.assert_array_equal(test.y, labels[5])
    for i, (row, column, channel) in enumerate([(0, 0, 0), (0, 1, 0), (1, 0, 0), (31, 31, 2)]):
        position = 1024 * channel + 32 * row + column
        assert test.x[i, row, column, channel] == pixels[5][i, position]
        assert train.x[4 + i, row, column, channel] == pixels[1][i, position]


def test_missing_batches_are_named(tmp_path):
    folder = write(tmp_path / "cifar")
    (folder / "data_batch_2.bin").unlink()
    (folder / "test_batch.bin").unlink()
    with pytest.raises(ValueError, match=r"lacks data_batch_2.bin, test_batch.bin of CIFAR-10"):
        data.load_cifar10(folder)


class Malicious:
    """Unpickles as a call of `print`."""

    def __reduce__(self):
        return print, ("code of the file has run",)


@pytest.mark.parametrize(
    ("version", "damage", "message"),
    [
        ("binary", lambda content: content[:-1], "cut short or foreign: 12291 bytes are no multiple of 3073"),
        ("binary", lambda content: b"", "cut short or foreign: 0 bytes"),
        ("binary", lambda content: b"\x0a" + content[1:], "foreign: it has a label 10, beyond the ten classes"),
        ("python", lambda content: content[:-40], "cut short or foreign"),
        ("python", lambda content: b"<html>", "cut short or foreign"),
        ("python", lambda content: pickle.dumps({b"labels": [0]}, protocol=2), "cut short or foreign: b'data'"),
        ("python", lambda content: pickled(*examples(0)[:1], np.arange(3)), r"foreign: data uint8\[4, 3072\], .*\[3\]"),
        ("python", lambda content: pickled(examples(0)[0], -np.ones(4, int)), "foreign: data"),
        ("python", lambda content: pickle.dumps(Malicious(), protocol=2), "__builtin__.print has no place in it"),
    ],
)
def test_damaged_and_foreign_batches_are_refused(tmp_path, version, damage, message, capsys):
    folder = write(tmp_path / "cifar", version)
    file = folder / ("data_batch_3" + WRITERS[version][1])
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=f"`path`: .*{file.name} is .*{message}"):
        data.load_cifar10(folder)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"no archive"])
def test_damaged_and_foreign_archives_are_refused(tmp_path, damage):
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(write(tmp_path / "cifar"), arcname="cifar")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"`path`: {path} is neither a folder nor an intact archive"):
        data.load_cifar10(path)


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    x, y = data.digits()
    grey, target = load_digits(return_X_y=True)
    assert x.dtype == jnp.float32
    np.testing.assert_array_equal(16 * x.reshape(1797, 64), grey)
    np.testing.assert_array_equal(y, target)
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
