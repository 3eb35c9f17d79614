import os
import resource
import subprocess
import sys

import pytest
import torch

from hexapla.schema import UserError
from hexapla.training.checkpoints import Checkpoints, State
from training_worlds import PATHS, STATE, advance, kept, world


def test_what_comes_back_goes_on_bit_for_bit(tmp_path):
    trained, optimizer = world()
    kept(tmp_path).save(trained, optimizer, STATE)
    again, other = world(seed=5)
    assert kept(tmp_path).restore(again, other) == STATE
    for _ in range(2):
        advance(trained, optimizer)
        advance(again, other)
    assert all(torch.equal(trained[name], again[name]) for name in trained)


def test_the_best_weights_stand_beside_the_last_two_and_all_can_be_cleared(tmp_path):
    trained, optimizer = world()
    best = {name: weight.detach().clone() for name, weight in trained.items()}
    kept(tmp_path).save_best(trained, STATE)
    for number in (1, 2, 3):
        advance(trained, optimizer)
        kept(tmp_path).save(trained, optimizer, State([[0]] * number, []))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best.safetensors", "step-000000002.safetensors", "step-000000003.safetensors"]
    assert kept(tmp_path).take_best(trained) == 2
    assert all(torch.equal(trained[name], best[name]) for name in trained)
    kept(tmp_path).clear()
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_other_settings_is_refused_by_what_differs(tmp_path):
    trained, optimizer = world()
    kept(tmp_path).save(trained, optimizer, STATE)
    with pytest.raises(
        UserError, match=r"of another training \(seed is 1 there, 2 here\); put that .* or remove"
    ):
        kept(tmp_path, seed=2).restore(trained, optimizer)
    with pytest.raises(UserError, match=r"extra is None there, 3 here"):
        kept(tmp_path, extra=3).restore(trained, optimizer)
    assert list(tmp_path.iterdir())


def test_what_a_killed_process_left_half_written_goes(tmp_path):
    (tmp_path / ".step-000000009.safetensors.x1y2").write_bytes(b"half")
    kept(tmp_path).save(*world(), STATE)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000002.safetensors"]


def test_when_it_falls_due_and_where_nothing_is_kept(tmp_path):
    assert [done for done in range(1, 8) if kept(tmp_path, every=3).due(done, 6)] == [3]
    nothing = Checkpoints(None, settings={}, every=1)
    assert not nothing.due(1, 9)
    assert nothing.restore(*world()) == State([], [])
    assert nothing.noted() == ""
    nothing.clear()


def test_the_tracking_run_is_remembered_for_the_same_training_only(tmp_path):
    kept(tmp_path).note("abc")
    assert kept(tmp_path).noted() == "abc"
    kept(tmp_path).clear()
    assert kept(tmp_path).noted() == ""
    kept(tmp_path).note("abc")
    assert kept(tmp_path, seed=9).noted() == ""


_FULL = """
import resource
import signal
import sys
from pathlib import Path

from hexapla.schema import UserError
from training_worlds import STATE, kept, world

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
try:
    kept(Path(sys.argv[1])).save(*world(seed=3), STATE._replace(curve=[[0]] * 7))
except UserError as mistake:
    print(mistake)
"""


def test_a_disk_that_is_full_leaves_the_checkpoint_before(tmp_path):
    trained, optimizer = world()
    kept(tmp_path).save(trained, optimizer, STATE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*PATHS, *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert "step-000000007.safetensors: can't be written (" in done.stdout, done.stderr
    assert "make room and run the same command again" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000002.safetensors"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 600
