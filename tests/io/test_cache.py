import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hexapla.io import cache, hashing
from hexapla.schema import UserError


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "work"


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.name != ".hexapla")


def write(folder, content):
    with cache.atomic_folder(folder) as new:
        (new / "a").write_text(content)
        (new / "b").write_text(content)


_KILLED = """
import os, pathlib, shutil, signal, sys
from hexapla.io import cache

die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
when, path = sys.argv[1], pathlib.Path(sys.argv[2])
if when == "removing":
    remove = shutil.rmtree
    def half(path, **_):
        next(file for file in path.rglob("*") if file.is_file()).unlink()
        die()
    shutil.rmtree = half
with cache.atomic_folder(path) as new:
    (new / "a").write_text("new")
    if when == "writing":
        die()
    (new / "b").write_text("new")
"""


def kill_while(when, path):
    done = subprocess.run([sys.executable, "-c", _KILLED, when, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_folder_is_replaced_completely_or_not_at_all(tmp_path):
    folder = tmp_path / "model"
    write(folder, "old")
    with pytest.raises(RuntimeError), cache.atomic_folder(folder) as new:
        (new / "a").write_text("new")
        raise RuntimeError
    assert files(tmp_path) == ["model", "model/a", "model/b"]
    with cache.atomic_folder(folder) as new:
        (new / "c").write_text("new")
    assert files(tmp_path) == ["model", "model/c"]


@pytest.mark.parametrize("content", ["old", "new"])
def test_a_kill_leaves_a_complete_folder_and_the_next_write_cleans_up(tmp_path, content):
    folder = tmp_path / "model"
    write(folder, "old")
    kill_while("writing" if content == "old" else "removing", folder)
    assert {(folder / name).read_text() for name in "ab"} == {content}
    assert len(list(tmp_path.iterdir())) == 2
    write(tmp_path / "other", "other")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "other"}


@pytest.mark.parametrize(
    "name", [".candidate.bak", ".candidate.old", ".candidate.abc.old", ".hexapla-mine", ".new-one"]
)
def test_a_users_own_folder_survives_whatever_its_name(tmp_path, name):
    mine = tmp_path / name / "weights"
    mine.mkdir(parents=True)
    (mine / "a").write_text("mine")
    write(tmp_path / "candidate", "new")
    write(tmp_path / "candidate", "newer")
    assert (mine / "a").read_text() == "mine"


def test_scratch_goes_with_its_block_however_it_ends(root):
    with pytest.raises(ZeroDivisionError), cache.scratch_folder("work") as folder:
        (folder / "some").mkdir()
        assert root in folder.parents
        assert 1 / 0
    assert files(root) == ["CACHEDIR.TAG"]


def test_what_a_killed_process_left_is_removed_and_what_another_uses_is_not(root):
    code = (
        "from hexapla.io import cache\n"
        "with cache.scratch_folder('work') as folder:\n"
        "    print(folder, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        theirs = Path(other.stdout.readline().strip())
        with cache.scratch_folder("work"):
            assert theirs.is_dir()
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert theirs.is_dir()
    with cache.scratch_folder("work") as mine:
        assert {path for path in root.iterdir() if path.is_dir()} == {mine.parent}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(cache.UserError, match="is not writable"), cache.atomic_folder(tmp_path / "model"):
        pass


def test_an_array_is_kept_in_its_file(tmp_path):
    kind = np.dtype([("a", "<u8", 2), ("b", "u1")])
    rows = cache.scratch_array(tmp_path / "rows", 3, kind)
    rows["a"][1] = 7, 8
    assert rows["a"].tolist() == [[0, 0], [7, 8], [0, 0]]
    assert (tmp_path / "rows").stat().st_size == 3 * kind.itemsize
    rows.flush()
    assert (tmp_path / "rows").read_bytes() == rows.tobytes()
    assert len(cache.scratch_array(tmp_path / "none", 0, kind)) == 0


def test_an_arrays_space_is_reserved_before_it_is_written_to(tmp_path):
    rows = cache.scratch_array(tmp_path / "rows", 1 << 16, np.dtype("<u8"))
    assert not rows.any()
    assert (tmp_path / "rows").stat().st_blocks * 512 >= rows.nbytes


# --- what the cache holds ------------------------------------------------------------------------


def fill(day):
    """Three entries of two kinds, used on days 1, 2 and 3; 10, 20 and 40 bytes."""
    one, two = cache.entry("translate", "ab" * 8), cache.entry("translate", "cd" * 8)
    with cache.atomic_file(one) as file:
        file.write_bytes(b"x" * 10)
    with cache.atomic_file(two) as file:
        file.write_bytes(b"x" * 20)
    three = cache.cache_root() / "models" / "some"
    with cache.atomic_folder(three) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a").write_bytes(b"x" * 30)
        (folder / "b").write_bytes(b"x" * 10)
    for number, path in enumerate((one, two, three / "b"), 1):
        os.utime(path, (number * day, number * day))
    os.utime(three / "deep" / "a", (0, 0))
    for folder in (three, three / "deep"):
        os.utime(folder, (0, 0))
    return one, two, three


def test_entries_are_whole_files_and_folders_least_recently_used_first():
    one, two, three = fill(1000.0)
    listed = cache.list_entries()
    assert listed == [
        cache.CacheEntry(one, "translate", 10, 1000.0),
        cache.CacheEntry(two, "translate", 20, 2000.0),
        cache.CacheEntry(three, "models", 40, 3000.0),
    ]
    assert cache.list_entries() == listed, "listing is no use"


@pytest.mark.parametrize(
    ("size", "before", "gone"),
    [(None, None, 0), (70, None, 0), (69, None, 1), (60, None, 1), (59, None, 2), (0, None, 3),
     (None, 1000.0, 0), (None, 1001.0, 1), (None, 9000.0, 3), (45, 1001.0, 2)],
)  # fmt: skip
def test_what_was_used_least_recently_goes_first_by_size_and_by_age(size, before, gone):
    paths = fill(1000.0)
    chosen = cache.choose_entries(cache.list_entries(), size, before)
    assert [entry.path for entry in chosen] == list(paths[:gone])
    cache.remove_entries(chosen)
    assert [entry.path for entry in cache.list_entries()] == list(paths[gone:])
    assert [path.exists() for path in paths] == [number >= gone for number in range(3)]


def test_what_carries_no_mark_of_ours_is_never_listed_or_removed(tmp_path):
    theirs = [tmp_path / "cache" / name for name in ("translate/ab/theirs", "photos/1.jpg", "notes.txt")]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
    (tmp_path / "cache" / "link").symlink_to(tmp_path / "cache" / "models")
    fill(1000.0)  # a folder `translate` is there already, so only `models` becomes ours
    listed = cache.list_entries()
    assert {entry.kind for entry in listed} == {"models"}
    cache.remove_entries(cache.choose_entries(listed, 0))
    assert [path.read_text() for path in theirs] == ["theirs"] * 3
    assert cache.entry("translate", "ab" * 8).exists()
    assert [path.name for path in cache.list_untagged()] == ["link", "notes.txt", "photos", "translate"]


def test_what_is_being_written_is_no_entry():
    with cache.scratch_folder("models") as work, cache.atomic_file(cache.entry("models", "ef" * 8)) as file:
        (work / "a").write_text("x")
        file.write_text("x")
        assert cache.list_entries() == []
    assert len(cache.list_entries()) == 1


def test_no_cache_has_no_entries():
    assert cache.list_entries() == cache.list_untagged() == []


# --- outputs of stages -------------------------------------------------------------------------------


def test_a_folder_is_replaced_only_if_we_wrote_it(tmp_path):
    out = tmp_path / "model"
    for content in ("one", "two"):
        with cache.atomic_folder(out) as scratch:
            (scratch / "weights").write_text(content)
    assert (out / "weights").read_text() == "two"
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    with cache.atomic_folder(foreign) as scratch:  # it is empty
        (scratch / "weights").write_text("three")
    other = tmp_path / "other"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    with (
        pytest.raises(UserError, match=r"other: holds chapter.txt, which Hexapla did not write"),
        cache.atomic_folder(other),
    ):
        pytest.fail("the folder was opened for writing")
    assert [file.name for file in other.iterdir()] == ["chapter.txt"]


def test_equal_outputs_have_equal_hashes(tmp_path):
    for name in ("a", "b"):
        with cache.atomic_folder(tmp_path / name) as scratch:
            (scratch / "weights").write_text("one")
    assert hashing.sha256(tmp_path / "a") == hashing.sha256(tmp_path / "b")


@pytest.mark.parametrize(
    ("outputs", "inputs"),
    [
        (("a", "a"), ()), (("a", "a/b"), ()), (("a/b", "a"), ()), (("a", "./x/../a"), ()), (("a", "b", "a"), ()),
        (("a", "link"), ()), (("a",), ("a",)), (("a",), ("a/b",)), (("a/b",), ("a",)),
    ],
)  # fmt: skip
def test_outputs_that_would_destroy_each_other_or_an_input_are_refused(tmp_path, outputs, inputs):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match=r"are one place, or one is inside the other"):
        cache.check_outputs(
            *(tmp_path / name for name in outputs), inputs=[tmp_path / name for name in inputs]
        )


def test_outputs_with_places_of_their_own_are_fine(tmp_path):
    names = ("model", "model.json", "models/a", "models/b")
    cache.check_outputs(*(tmp_path / name for name in names), inputs=[tmp_path / "pairs"])
