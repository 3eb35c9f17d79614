import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from test_distributed import run

from hexapla.training import fsdp
from training_worlds import PATHS, advance, kept, world

_SCRIPT = """
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from torch.distributed.fsdp import fully_shard

sys.path[:0] = sys.argv[2:]
from hexapla.training import fsdp
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
    assert torch.equal(fsdp.whole(trained[name]), fsdp.whole(again[name]))
spare = fsdp.unsharded(model, Model(9))
if state.is_main_process:
    torch.save(dict(spare.named_parameters()), out / "spare.pt")
"""


def test_sharded_weights_are_kept_whole_and_come_back(tmp_path):
    run(_SCRIPT, tmp_path, *PATHS, count=2)
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
    assert fsdp.spare_of(Accelerator(cpu=True), model) is None
    made, _ = fsdp.prepared(Accelerator(cpu=True), model, optimizer)
    assert made is model
