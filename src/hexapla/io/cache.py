"""The files that Hexapla itself writes. Every write is atomic: whole, or not there at all.

JSON and CSV are here, tables in `parquet`, what users bring in `intake`: no other code knows file formats.
"""

import csv
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from hexapla.io import readers
from hexapla.schema import UserError


def cache_root() -> Path:
    """$HEXAPLA_CACHE, else $XDG_CACHE_HOME/hexapla, else ~/.cache/hexapla."""
    if own := os.environ.get("HEXAPLA_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hexapla"


def cached(stage: str, key: str, suffix: str = ".parquet") -> Path:
    """Where a stage keeps a result; `key` is a hash of all that it depends on, so none is ever changed."""
    return cache_root() / stage / key[:2] / f"{key}{suffix}"


# --- writing ---------------------------------------------------------------------------------


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` when the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        scratch.chmod(0o644)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Like `whole_file`, for a folder; what stood at `path` before is replaced at the end."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; a folder will be written here, so name another place")
    with held_folder(path.parent, f".{path.name}.") as scratch:
        yield scratch
        scratch.chmod(0o755)
        # Aside first: a folder that is half removed would pass for a whole one.
        old = scratch.with_name(f"{scratch.name}.old")
        with suppress(FileNotFoundError):
            path.rename(old)
        scratch.rename(path)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def held_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder `<parent>/<prefix>…`; after the block it is gone, if it is still there.

    Who works in one holds a lock on it, which a process loses as it dies, however it dies: what such a
    one left is removed here.
    """
    parent.mkdir(parents=True, exist_ok=True)
    if not os.access(parent, os.W_OK):
        raise UserError(f"{parent}: may not be written to")
    for left in parent.glob(f"{prefix}*"):
        _remove_unheld(left)
    mine = Path(tempfile.mkdtemp(dir=parent, prefix=".new-"))
    lock = os.open(mine, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: what a killed process leaves, stays
            fcntl.flock(lock, fcntl.LOCK_EX)
        # Only now, so that what has this name and no lock is nobody's.
        mine = mine.rename(parent / f"{prefix}{mine.name.removeprefix('.new-')}")
        yield mine
    finally:
        os.close(lock)
        shutil.rmtree(mine, ignore_errors=True)


def _remove_unheld(left: Path) -> None:
    try:
        lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return  # a scratch file, or gone meanwhile
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # somebody works there
    else:
        shutil.rmtree(left, ignore_errors=True)
    finally:
        os.close(lock)


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, tree: Any) -> None:
    """Indented, in the given key order, the same bytes for the same tree."""
    write_text(path, json.dumps(tree, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with whole_file(path) as scratch, scratch.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


# --- reading our own -------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """Raises UserError when the file is missing or no JSON, with the line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: broken JSON ({error.msg})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None


def read_curve(path: Path, column: str) -> tuple[list[float], list[float]]:
    """Steps and values of a curve that training wrote; both empty for a model that was not trained."""
    rows = [row for _, row in readers.read_rows(path, "csv")]
    return [float(row["step"]) for row in rows], [float(row[column]) for row in rows]


def code(*modules: ModuleType) -> str:
    """Of what some modules do with text: results that were kept under another hash are other code's."""
    files = [sha256(Path(module.__file__ or "")) for module in modules]
    return hashlib.sha256(" ".join([unicodedata.unidata_version, *files]).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Of a file's bytes; of a folder, over its files' names and bytes, in order of name."""
    digest = hashlib.sha256()
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()
