"""The store: a folder for each run, a JSON for each claim, an NPZ for its curves.

::

    results/20260131T120000Z-quick-seed0/
        run.json                  settings, environment, digest of the sources
        claims/<claim>.json       one record
        claims/<claim>.npz        its curves, named role/curve/field; the JSON holds their checksum
        aside/                    files that were found in claims/ and could not be trusted
        report/                   pages to read

Every file is written under a temporary name, flushed to the disk and renamed, curves before the record that names their
checksum: at whatever moment a run is killed, a record is there in full or not at all.

To read a run: `find_run` (by name, by path, or the latest) and `load_run`, which gives a `Run` whose records are
complete, curves included. To write one: `Store`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import io
import json
import math
import os
import re
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.claim import Claim
from experiments.curves import Curve, Curves
from experiments.errors import UsageError
from experiments.evaluate import Record
from experiments.judges import Verdict, criterion

__all__ = ["RESULTS", "Run", "Store", "StoreError", "find_run", "load_run", "read_settings", "runs"]

RESULTS = Path("results")  # below the working directory, which `python -m experiments` makes the repository

_BEGINNING = {".lock", "claims", "run.json.tmp"}  # all that a run leaves that is killed before it has begun
_RECORD_TYPES = {name: hint for name, hint in typing.get_type_hints(Record).items() if name != "curves"}


class StoreError(UsageError):
    """A folder that cannot be used as asked."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as it lies on the disk.

    Attributes:
        path: its folder.
        settings: tier ("quick" or "full"), seed, patterns (as typed, empty for the whole sheet), package (of the
            claims), jobs, scheduler, started and resumed (UTC, ISO 8601; equal if the run was never resumed).
        environment: versions, machine and commit, in words.
        digest: hash of the sources that computed it.
        selected: names of the claims that the run set out to check. Those without a record were not reached.
        records: the trusted records by claim name, with their curves: role ("measured", "predicted", "control
            predicted", "corrected measured", ...) -> name in the legend -> `Curve` of float64 arrays.
        problems: one line for each file that could not be trusted.
    """

    path: Path
    settings: dict[str, Any]
    environment: dict[str, Any]
    digest: str
    selected: tuple[str, ...]
    records: dict[str, Record]
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name


def load_run(path: Path, *, only: Collection[str] | None = None) -> Run:
    """Reads a run; changes nothing on the disk.

    A record counts if it parses, is complete, lies under its own name, fits its curves, and agrees with the run on
    seed, tier and digest. Whatever does not is left out and named in `problems`.

    Args:
        path: the run's folder.
        only: names of the claims whose records to read; all by default.

    Raises:
        StoreError: if the folder holds no readable ``run.json``.
    """
    head = _read_head(path)
    wanted = None if only is None else {f"{_file_name(name)}.json" for name in only}
    records, problems = {}, []
    for file in _listing(path / "claims"):
        if file.suffix == ".json" and (wanted is None or file.name in wanted):
            try:
                record = _read_record(file)
                _agree(record, head)
                records[record.claim] = record
            except ValueError as error:
                problems.append(f"{file.name}: {error}")
    settings, environment, digest, selected = (head[field] for field in _HEAD_TYPES)
    return Run(path, settings, environment, digest, tuple(selected), records, tuple(problems))


def runs(results: Path = RESULTS) -> dict[Path, dict[str, Any]]:
    """Folders of the readable runs in `results` with their settings, the one last worked on first."""
    found = {}
    for folder in _listing(results):
        with contextlib.suppress(StoreError):
            found[folder] = read_settings(folder)
    return dict(sorted(found.items(), key=lambda item: item[1]["resumed"], reverse=True))


def find_run(run: str | None = None, *, results: Path = RESULTS) -> Path:
    """The folder of a run: `run` is a path or a name in `results`; None is the run last worked on.

    Raises:
        StoreError: if there is none.
    """
    if run is None:
        for folder in runs(results):
            return folder
        raise StoreError(f"there are no results in {results.resolve()}")
    for folder in (Path(run), results / run):
        if (folder / "run.json").exists():
            return folder
    raise StoreError(f"there is no run {run}, neither here nor in {results.resolve()}")


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a run; see `Run`.

    Raises:
        StoreError: if the folder holds no readable ``run.json``.
    """
    return _read_head(path)["settings"]


class Store:
    """A run's folder opened for writing, by one process at a time; a context manager that closes it.

    Attributes:
        path: the folder.
        records: what is stored and trusted, by claim name.
        problems: name and fault of each file that was found and moved aside.
    """

    def __init__(self, path: Path, head: Mapping[str, Any], registry: Mapping[str, Claim]) -> None:
        """Locks the folder, moves aside what cannot be trusted, and writes ``run.json``.

        Raises:
            StoreError: if another process has the folder open.
            OSError: if the folder cannot be written.
        """
        self.path = path
        self.records: dict[str, Record] = {}
        self.problems: list[tuple[str, str]] = []
        (path / "claims").mkdir(parents=True, exist_ok=True)
        self._lock = _lock(path)
        try:
            self._take_stock(head, registry)
            _write(path / "run.json", _encode(head))
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(
        cls,
        path: Path | None,
        *,
        settings: Mapping[str, Any],
        environment: Mapping[str, Any],
        digest: str,
        claims: Sequence[str],
        results: Path = RESULTS,
    ) -> Store:
        """Begins a run.

        Args:
            path: its folder, new or empty; by default one in `results` named after the time, the tier and the seed.
            settings: package, tier, seed, patterns, jobs, scheduler.
            environment: see `Run`.
            digest: see `Run`.
            claims: names of the claims that the run is to check.
            results: the folder of all runs.

        Raises:
            StoreError: if the folder holds anything already, or another process has it open.
            OSError: if the folder cannot be written.
        """
        now = datetime.datetime.now(datetime.UTC)
        if path is None:
            path = _new_folder(results, f"{now:%Y%m%dT%H%M%SZ}-{settings['tier']}-seed{settings['seed']}")
        else:
            held = {file.name for file in _listing(path)} - _BEGINNING
            if held:
                holds = "a run already: --resume goes on with it" if "run.json" in held else "other files"
                raise StoreError(f"{path} holds {holds}")
        times = {"started": now.isoformat(timespec="microseconds"), "resumed": now.isoformat(timespec="microseconds")}
        head = {"settings": {**settings, **times}, "environment": environment, "digest": digest, "claims": claims}
        return cls(path, head, {})

    @classmethod
    def resume(
        cls,
        path: Path,
        *,
        environment: Mapping[str, Any],
        digest: str,
        claims: Sequence[str],
        registry: Mapping[str, Claim],
    ) -> Store:
        """Goes on with a run; `registry` holds all claims there are, `claims` names those to check now.

        Raises:
            StoreError: if there is no run, or another process has it open.
            OSError: if the folder cannot be written.
        """
        head = _read_head(path)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
        selected = [*head["claims"], *(name for name in claims if name not in head["claims"])]
        settings = {**head["settings"], "resumed": now}
        return cls(
            path, {"settings": settings, "environment": environment, "digest": digest, "claims": selected}, registry
        )

    def write(self, record: Record) -> None:
        """Adds a record or replaces it.

        Raises:
            OSError: if it cannot be written; what was stored before is untouched.
        """
        name = _file_name(record.claim)
        data = {field: getattr(record, field) for field in _RECORD_TYPES}
        data["curves"] = None
        if record.curves:
            curves = _pack(record.curves)
            data["curves"] = {"file": f"{name}.npz", "sha256": hashlib.sha256(curves).hexdigest()}
            _write(self.path / "claims" / f"{name}.npz", curves)
        _write(self.path / "claims" / f"{name}.json", _encode(data))
        self.records[record.claim] = record

    def close(self) -> None:
        """Lets others open the folder."""
        os.close(self._lock)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_stock(self, head: Mapping[str, Any], registry: Mapping[str, Claim]) -> None:
        known = {f"{_file_name(name)}.json": claim for name, claim in registry.items()}
        trusted = set()
        for file in _listing(self.path / "claims"):
            if file.suffix == ".json":
                try:
                    if file.name not in known:
                        raise ValueError("belongs to no claim")
                    record = _read_record(file)
                    _agree(record, head)
                    _agree_with_claim(record, known[file.name])
                except ValueError as error:
                    self._move_aside(file, str(error))
                else:
                    self.records[record.claim] = record
                    trusted |= {file.name} | ({f"{file.stem}.npz"} if record.curves else set())
        for file in _listing(self.path / "claims"):
            if file.name not in trusted:
                self._move_aside(file, "belongs to no trusted record")

    def _move_aside(self, file: Path, reason: str) -> None:
        aside = self.path / "aside"
        aside.mkdir(exist_ok=True)
        for each in (file, file.with_suffix(".npz")) if file.suffix == ".json" else (file,):
            target, number = aside / each.name, 1
            while target.exists():
                target, number = aside / f"{each.name}.{number}", number + 1
            with contextlib.suppress(FileNotFoundError):
                each.rename(target)
        self.problems.append((file.name, reason))


def _new_folder(results: Path, name: str) -> Path:
    results.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):
        with contextlib.suppress(FileExistsError):
            (results / (name + suffix)).mkdir()
            return results / (name + suffix)
    raise StoreError(f"{results / name} and its like are taken")


def _lock(path: Path) -> int:
    """An exclusive lock that ends with the process, however it ends."""
    descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreError(f"another run is at work in {path}") from None
    return descriptor


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _file_name(claim: str) -> str:
    """A name that every file system takes, different for different claims even where case does not count."""
    plain = re.sub(r"[^a-z0-9.@_-]+", "-", claim.lower())[:100]
    return plain if plain == claim else f"{plain}~{hashlib.sha256(claim.encode()).hexdigest()[:8]}"


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, must outlive a power cut
    finally:
        os.close(folder)


def _encode(value: Any) -> bytes:
    return json.dumps(_plain(value), indent=1, allow_nan=False).encode()


def _decode(data: bytes) -> Any:
    """The inverse of `_encode`; ValueError for anything that is not strict JSON."""

    def refuse(token: str) -> None:
        raise ValueError(f"{token} is not JSON")

    def number(table: dict[str, Any]) -> Any:
        return float(table["$float"]) if set(table) == {"$float"} else table

    return json.loads(data, object_hook=number, parse_constant=refuse)


def _plain(value: Any) -> Any:
    """The value in JSON's types; infinities and NaN, which JSON lacks, become ``{"$float": "inf"}``."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return str(value)
        case float():
            return float(value) if math.isfinite(value) else {"$float": str(float(value))}
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case np.generic() | np.ndarray():
            return _plain(value.tolist())
        case _:
            return str(value)


def _pack(curves: Mapping[str, Curves]) -> bytes:
    arrays = {
        f"{role}/{name}/{field}": array
        for role, named in curves.items()
        for name, curve in named.items()
        for field, array in curve._asdict().items()
        if array is not None
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def _unpack(data: bytes) -> dict[str, Curves]:
    curves: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        for key in arrays.files:
            role, _, rest = key.partition("/")
            name, _, field = rest.rpartition("/")
            curves.setdefault(role, {}).setdefault(name, {})[field] = arrays[key]
    return {role: {name: Curve(**fields) for name, fields in named.items()} for role, named in curves.items()}


def _read_head(path: Path) -> dict[str, Any]:
    try:
        head = _decode((path / "run.json").read_bytes())
    except OSError as error:
        raise StoreError(f"no run in {path}: {error.strerror}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{path / 'run.json'} is damaged: {error}") from None
    if not _fits(head, _HEAD_TYPES) or not _fits(head["settings"], _SETTINGS_TYPES):
        raise StoreError(f"{path / 'run.json'} is not the head of a run")
    return head


_HEAD_TYPES = {"settings": dict[str, Any], "environment": dict[str, Any], "digest": str, "claims": list[str]}
_SETTINGS_TYPES = {
    "package": str,
    "tier": str,
    "seed": int,
    "patterns": list[str],
    "started": str,
    "resumed": str,
}


def _read_record(file: Path) -> Record:
    """The record in a file, its curves from the file beside it; ValueError says what is wrong with either."""
    try:
        data = _decode(file.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not _fits(data, {**_RECORD_TYPES, "curves": dict[str, Any] | None}) or data["verdict"] not in set(Verdict):
        raise ValueError("is not a record")
    where = data.pop("curves")
    record = Record(**{field: data[field] for field in _RECORD_TYPES})
    if file.name != f"{_file_name(record.claim)}.json":
        raise ValueError(f"is the record of {record.claim}")
    if where is not None:
        try:
            packed = file.with_suffix(".npz").read_bytes()
            if hashlib.sha256(packed).hexdigest() != where.get("sha256"):
                raise ValueError("their checksum differs")
            record.curves = _unpack(packed)
        except OSError as error:
            raise ValueError(f"curves are missing: {error.strerror}") from None
        except Exception as error:  # NumPy and zipfile answer a foreign file in many ways
            raise ValueError(f"curves are damaged: {error}") from None
    return record


def _agree(record: Record, head: Mapping[str, Any]) -> None:
    for field in ("seed", "tier"):
        if getattr(record, field) != head["settings"][field]:
            raise ValueError(f"was computed with {field} {getattr(record, field)}")
    if record.digest != head["digest"]:
        raise ValueError("was computed by other sources")


def _agree_with_claim(record: Record, claim: Claim) -> None:
    if record.claim != claim.name or record.budget != getattr(claim.budget, record.tier):
        raise ValueError("was computed with another budget")
    if _plain(record.criterion) != _plain(criterion(claim.judge)):
        raise ValueError("was judged by another criterion")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a decoded JSON value has the type of a `Record` field (or, for a dictionary of hints, at least those)."""
    if isinstance(hint, dict):
        return isinstance(value, dict) and all(key in value and _fits(value[key], each) for key, each in hint.items())
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, each) for each in arguments)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if origin is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    return isinstance(value, hint)
