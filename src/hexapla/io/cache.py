"""The cache, and atomic writes: a file or folder that Hexapla writes is complete, or does not exist.

This module knows JSON and CSV, `tables` knows Parquet and `readers` the formats that users bring; no other
code knows file formats.
"""

import csv
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from hexapla.io import readers
from hexapla.schema import UserError

_PREFIX = ".hexapla-"
_MARK = "scratch-of-hexapla"
_OUTPUT_MARK = ".hexapla"
_OUTPUT_TEXT = "Hexapla wrote this folder and may replace it.\n"
"""The same in every folder, so that equal outputs have equal hashes."""
_TAG = "CACHEDIR.TAG"
_TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# Hexapla made this folder and may remove what is in it (`hexapla cache --prune`).\n"
)
"""The first line is that of https://bford.info/cachedir, by which backups leave caches out."""


def cache_root() -> Path:
    """$HEXAPLA_CACHE, else $XDG_CACHE_HOME/hexapla, else ~/.cache/hexapla."""
    if own := os.environ.get("HEXAPLA_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hexapla"


def entry(stage: str, key: str, suffix: str = ".parquet") -> Path:
    """The path at which a stage keeps a result.

    `key` is a hash of everything that the result depends on, so that an entry never changes.
    """
    return cache_root() / stage / key[:2] / f"{key}{suffix}"


# --- writing ---------------------------------------------------------------------------------


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes `path` when the block succeeds and is removed when it fails."""
    make_folder(path.parent)
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
def atomic_folder(path: Path) -> Iterator[Path]:
    """Like `atomic_file`, for a folder: it replaces what this function wrote to `path` before, and nothing else.

    Raises:
        UserError: `path` is a file, or a folder that holds something without our mark.
    """
    _refuse_foreign(path)
    cached = cache_root().resolve() in path.resolve().parents
    with _marked_folder(path.parent) as marked:
        new, old = marked / path.name, marked / f"{path.name}.old"
        new.mkdir()
        yield new
        if not cached:
            (new / _OUTPUT_MARK).write_text(_OUTPUT_TEXT, encoding="utf-8")
        new.chmod(0o755)
        # The old folder moves aside first: if it were removed in place and the process killed meanwhile,
        # the remaining half would pass for a whole folder.
        with suppress(FileNotFoundError):
            path.rename(old)
        new.rename(path)


def check_outputs(*outputs: Path, inputs: Sequence[Path] = ()) -> None:
    """Refuse, before any work, outputs that would destroy one another, an input, or files of somebody else.

    Raises:
        UserError: an output is another one or an input, or one of the two is inside the other; or a folder that
            would be replaced holds something that Hexapla did not write.
    """
    for number, output in enumerate(outputs):
        for other in (*outputs[number + 1 :], *inputs):
            one, two = output.resolve(), other.resolve()
            if one == two or one in two.parents or two in one.parents:
                raise UserError(
                    f"{output} and {other}: are one place, or one is inside the other; name a place for each"
                )
        if output.is_dir():
            _refuse_foreign(output)


def _refuse_foreign(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path}: is a file, but a folder will be written here; name another place")
    held = sorted(entry.name for entry in path.iterdir())
    if held and _OUTPUT_MARK not in held and cache_root().resolve() not in path.resolve().parents:
        raise UserError(
            f"{path}: holds {held[0]}, which Hexapla did not write, and would be replaced; name another folder, or "
            "remove it"
        )


def make_folder(folder: Path) -> None:
    """Create a folder; one that is new in the cache gets the tag without which nothing in it is ever removed."""
    root = cache_root()
    if root in folder.parents:
        kind = root / folder.relative_to(root).parts[0]
        with suppress(
            FileExistsError
        ):  # A folder that was there before may be the user's, so it gets no tag.
            kind.mkdir(parents=True)
            (kind / _TAG).write_text(_TAG_TEXT, encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """Yield a new folder below `<cache>/<name>` that is removed after the block."""
    with _marked_folder(cache_root() / name) as marked:
        work = marked / "work"
        work.mkdir()
        yield work


@contextmanager
def _marked_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder `<parent>/.hexapla-…` that is removed after the block.

    The folder holds a file named `_MARK`, and the process holds a lock on that file. The system releases the
    lock when the process dies, however it dies. So a marked folder without a lock is what a killed process
    left, and is removed here. Nothing without the mark is ever removed, whatever its name.
    """
    make_folder(parent)
    if not os.access(parent, os.W_OK):
        raise UserError(f"{parent}: is not writable")
    for mark in parent.glob(f"{_PREFIX}*/{_MARK}"):
        _remove_unlocked(mark)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
    unlocked = folder / f"{_MARK}.new"
    lock = os.open(unlocked, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with suppress(OSError):  # On a file system without locks, a killed process's folders remain.
            fcntl.flock(lock, fcntl.LOCK_EX)
        # The mark gets its name only once it is locked, so that no other process removes the folder.
        unlocked.rename(folder / _MARK)
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def _remove_unlocked(mark: Path) -> None:
    try:
        lock = os.open(mark, os.O_RDWR)
    except OSError:
        return  # Another process removed it.
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # A living process works there.
    else:
        _remove(mark.parent)
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a marked folder, its mark last: what a kill leaves half removed is then removed next time."""
    for entry in folder.iterdir():
        if entry.name != _MARK:
            shutil.rmtree(entry, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def scratch_array(path: Path, rows: int, dtype: np.dtype) -> Shaped[np.ndarray, " rows"]:
    """Create an array of zeros in a new file; the system keeps in memory as much of it as there is room for.

    Raises:
        OSError: the disk is full. The space is reserved here, because a process that writes to a mapped file
            on a full disk is killed.
    """
    if not rows:  # An empty file can't be mapped.
        return np.zeros(0, dtype)
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, rows * dtype.itemsize)
        else:
            file.truncate(rows * dtype.itemsize)
    return np.memmap(path, dtype, "r+", shape=(rows,))


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, tree: Any) -> None:
    """Indented, in the given key order, the same bytes for the same tree."""
    write_text(path, json.dumps(tree, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with atomic_file(path) as scratch, scratch.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


# --- what the cache holds ---------------------------------------------------------------------


class CacheEntry(NamedTuple):
    """A file or folder of the cache that is of use only as a whole."""

    path: Path
    kind: str
    """The folder of the cache that holds it."""
    size: int
    """In bytes."""
    used: float
    """Seconds since 1970 of the last use. Most systems note reading once a day."""


def list_entries() -> list[CacheEntry]:
    """List the entries of those folders of the cache that Hexapla made itself, least recently used first."""
    return sorted(
        (_measure(path, kind.name) for kind in _list_kinds(tagged=True) for path in _list_whole(kind)),
        key=lambda entry: (entry.used, entry.path),
    )


def _list_whole(kind: Path) -> Iterator[Path]:
    for path in kind.iterdir():
        # `entry` spreads files over folders of two hexadecimal digits; all else is an entry itself.
        spread = path.is_dir() and len(path.name) == 2
        for each in path.iterdir() if spread else (path,):
            if each.name != _TAG and not each.name.startswith("."):  # dotted: somebody writes there
                yield each


def list_untagged() -> list[Path]:
    """List what is in the cache but was not made by Hexapla, or by a version before the tag."""
    return _list_kinds(tagged=False)


def _list_kinds(*, tagged: bool) -> list[Path]:
    folders = sorted(cache_root().iterdir()) if cache_root().is_dir() else []
    return [path for path in folders if _is_tagged(path) is tagged and not path.name.startswith(_PREFIX)]


def _is_tagged(kind: Path) -> bool:
    try:
        return not kind.is_symlink() and (kind / _TAG).read_text(encoding="utf-8") == _TAG_TEXT
    except (OSError, UnicodeDecodeError):
        return False


def _measure(path: Path, kind: str) -> CacheEntry:
    files = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    size, used = 0, 0.0
    for file in files:
        with suppress(FileNotFoundError):  # Another process may remove it meanwhile.
            status = file.lstat()
            # Listing a folder is no use of it, but notes a time of access.
            directory = stat.S_ISDIR(status.st_mode)
            size += 0 if directory else status.st_size
            used = max(used, status.st_mtime, 0.0 if directory else status.st_atime)
    return CacheEntry(path, kind, size, used)


def choose_entries(
    entries: Sequence[CacheEntry], size: int | None = None, before: float | None = None
) -> list[CacheEntry]:
    """Choose what to remove: all entries not used since `before`, then more until the rest fits into `size`.

    Args:
        entries: least recently used first.
        size: bytes that may remain; None for any number.
        before: seconds since 1970; None for no limit of age.
    """
    left = sum(entry.size for entry in entries)
    chosen = []
    for entry in entries:
        if (before is not None and entry.used < before) or (size is not None and left > size):
            chosen.append(entry)
            left -= entry.size
    return chosen


def remove_entries(entries: Iterable[CacheEntry]) -> None:
    """Remove the entries; each leaves the cache at once and as a whole, even if the process is killed."""
    for entry in entries:
        with _marked_folder(cache_root() / entry.kind) as marked, suppress(FileNotFoundError):
            entry.path.rename(marked / entry.path.name)


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
