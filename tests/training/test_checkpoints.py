import os
import resource
import subprocess
import sys

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from hexapla.schema import UserError
from hexapla.training.checkpoints import Checkpoints, TrainingState, copy_to_unshard, prepare_model
from ranks import run
from training_worlds import STATE, advance, kept, world


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
        kept(tmp_path).save(trained, optimizer, TrainingState([[0]] * number, []))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best.safetensors", "step-000000002.safetensors", "step-000000003.safetensors"]
    assert kept(tmp_path).load_best(trained) == 2
    assert all(torch.equal(trained[name], best[name]) for name in trained)
    kept(tmp_path).clear()
    assert not list(tmp_path.iterdir())


def test_a_broken_checkpoint_does_not_count_among_the_two_that_are_kept(tmp_path):
    trained, optimizer = world()
    for number in (4, 8, 12):
        kept(tmp_path).save(trained, optimizer, TrainingState([[0]] * number, []))
    (tmp_path / "step-000000012.safetensors").write_bytes(b"broken")
    assert len(kept(tmp_path).restore(trained, optimizer).curve) == 8
    kept(tmp_path).save(trained, optimizer, TrainingState([[0]] * 10, []))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-000000008.safetensors", "step-000000010.safetensors"]


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
    assert [done for done in range(1, 8) if kept(tmp_path, every=3).is_due(done, 6)] == [3]
    nothing = Checkpoints(None, settings={}, every=1)
    assert not nothing.is_due(1, 9)
    assert nothing.restore(*world()) == TrainingState([], [])
    assert nothing.recall_run() == ""
    nothing.clear()


def test_the_tracking_run_is_remembered_for_the_same_training_only(tmp_path):
    kept(tmp_path).remember_run("abc")
    assert kept(tmp_path).recall_run() == "abc"
    kept(tmp_path).clear()
    assert kept(tmp_path).recall_run() == ""
    kept(tmp_path).remember_run("abc")
    assert kept(tmp_path, seed=9).recall_run() == ""


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


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_the_checkpoint_before(tmp_path):
    trained, optimizer = world()
    kept(tmp_path).save(trained, optimizer, STATE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert "step-000000007.safetensors: can't be written (" in done.stdout, done.stderr
    assert "make room and run the same command again" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000002.safetensors"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 600


_SHARDED = """
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from torch.distributed.fsdp import fully_shard

from hexapla.training.checkpoints import gather_whole, unshard
from training_worlds import STATE, advance, kept, world

state = PartialState(cpu=True)
out = Path(sys.argv[1])
mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (state.num_processes,))


class Model(torch.nn.Module):
    def __init__(self, seed):
        super().__init__()
        for name, weight in world(seed)[0].items():
            self.register_parameter(name, weight)


def sharded(seed):
    model = Model(seed)
    fully_shard(model, mesh=mesh)
    trained = dict(model.named_parameters())
    return model, trained, torch.optim.AdamW(trained.values(), lr=0.1, fused=True)


model, trained, optimizer = sharded(0)
assert all(weight.to_local().numel() < weight.numel() for weight in trained.values())
advance(trained, optimizer)
kept(out).save(trained, optimizer, STATE)
torch.distributed.barrier()
_, again, other = sharded(7)
assert kept(out).restore(again, other) == STATE
for _ in range(2):
    advance(trained, optimizer)
    advance(again, other)
for name in trained:
    assert torch.equal(gather_whole(trained[name]), gather_whole(again[name]))
spare = unshard(model, Model(9))
if state.is_main_process:
    torch.save(dict(spare.named_parameters()), out / "spare.pt")
"""


@pytest.mark.slow
def test_sharded_weights_are_kept_whole_and_come_back(tmp_path):
    run(_SHARDED, tmp_path, count=2)
    trained, _ = world()
    optimizer = torch.optim.AdamW(trained.values(), lr=0.1, fused=True)
    advance(trained, optimizer)
    held = load_file(tmp_path / "step-000000002.safetensors")
    assert all(torch.equal(held[f"weight.{name}"], weight) for name, weight in trained.items())
    assert kept(tmp_path).restore(*world(seed=4)).scores == [0.5]
    advance(trained, optimizer)
    advance(trained, optimizer)
    spare = torch.load(tmp_path / "spare.pt", weights_only=False)
    for name, weight in trained.items():
        torch.testing.assert_close(spare[name], weight)


def test_without_sharding_the_model_stays_the_one_it_is():
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    assert copy_to_unshard(Accelerator(cpu=True), model) is None
    made, _ = prepare_model(Accelerator(cpu=True), model, optimizer)
    assert made is model
