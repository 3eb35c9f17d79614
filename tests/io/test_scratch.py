"""Folders for a while, and what killed processes left in them."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hexapla.io import scratch


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path))
    return tmp_path / "work"


def test_a_folder_goes_with_its_block_whatever_ends_it(root):
    with pytest.raises(ZeroDivisionError), scratch.folder("work") as folder:
        (folder / "some").mkdir()
        assert folder.parent == root
        assert 1 / 0
    assert not [*root.iterdir()]


def test_what_a_killed_process_left_is_removed_and_what_another_uses_is_not(root):
    code = (
        "from hexapla.parallel import scratch\n"
        "with scratch.folder('work') as folder:\n"
        "    print(folder, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        theirs = Path(other.stdout.readline().strip())
        assert theirs.parent == root
        with scratch.folder("work"):
            assert theirs.is_dir()
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert theirs.is_dir()
    with scratch.folder("work") as mine:
        assert [*root.iterdir()] == [mine]


def test_what_is_left_of_a_folder_that_was_being_removed_goes_too(root):
    left = root / ".scratch-left" / "some"
    left.mkdir(parents=True)
    with scratch.folder("work") as mine:
        assert [*root.iterdir()] == [mine]


def test_an_array_is_kept_in_its_file(tmp_path):
    kind = np.dtype([("a", "<u8", 2), ("b", "u1")])
    rows = scratch.array(tmp_path / "rows", 3, kind)
    rows["a"][1] = 7, 8
    assert rows["a"].tolist() == [[0, 0], [7, 8], [0, 0]]
    assert (tmp_path / "rows").stat().st_size == 3 * kind.itemsize
    rows.flush()
    assert (tmp_path / "rows").read_bytes() == rows.tobytes()
    assert len(scratch.array(tmp_path / "none", 0, kind)) == 0


def test_an_arrays_room_is_taken_before_it_is_written_to(tmp_path):
    rows = scratch.array(tmp_path / "rows", 1 << 16, np.dtype("<u8"))
    assert not rows.any()
    assert (tmp_path / "rows").stat().st_blocks * 512 >= rows.nbytes
