import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from conftest import LANGUAGES, sample
from hexapla.parallel import distributed
from hexapla.schema import UserError
from ranks import run

_SCRIPT = """
import os
import sys
from pathlib import Path

import numpy as np

from conftest import LANGUAGES, sample
from hexapla.modeling import encoder, embed as encoding, embedding_cache as vectors
from hexapla.parallel import distributed as processes

folder, out, cache = (Path(argument) for argument in sys.argv[1:])
encoding.WINDOW = 16
processes._ROWS_AT_ONCE = 7
texts = [row["passage"] for lang in LANGUAGES[:5] for row in sample(lang)[:19]]
tiny = encoder.load(str(folder), prompts={"query": "ask: ", "passage": "text: "})
found = encoding.encode(tiny, texts, "passage", 64, cache=vectors.EmbeddingCache(cache), progress="texts")
few = encoding.encode(tiny, texts[:3], "passage", 64)
assert processes.count() == int(os.environ["WORLD_SIZE"])
agreed = processes.agreed(f"of {processes.rank()}")
parts = processes.gather(np.full((2 * processes.rank(), 3), processes.rank(), np.float32))
assert [part.shape for part in parts] == [(2 * rank, 3) for rank in range(processes.count())]
assert all((part == rank).all() for rank, part in enumerate(parts))
processes.barrier()
np.savez(out / f"{processes.rank()}-of-{processes.count()}.npz", found=found, few=few, agreed=agreed)
"""


def test_two_processes_share_the_work_and_give_the_same_bits(tiny_folder, tmp_path, monkeypatch):
    from hexapla.modeling import embed, embedding_cache, encoder

    run(_SCRIPT, tiny_folder, tmp_path, tmp_path / "two", count=2)
    monkeypatch.setattr(embed, "WINDOW", 16)
    texts = [row["passage"] for lang in LANGUAGES[:5] for row in sample(lang)[:19]]
    tiny = encoder.load(str(tiny_folder), prompts={"query": "ask: ", "passage": "text: "}, device="cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = embed.encode(tiny, texts, "passage", 64, cache=embedding_cache.EmbeddingCache(tmp_path / "one"))
    few = embed.encode(tiny, texts[:3], "passage", 64)
    torch.set_num_threads(threads)
    for rank in range(2):
        with np.load(tmp_path / f"{rank}-of-2.npz") as each:
            np.testing.assert_array_equal(each["found"], found)
            np.testing.assert_array_equal(each["few"], few)
            assert each["agreed"] == "of 0"
    one, two = (sorted(f.name for f in (tmp_path / cache).rglob("*.vectors")) for cache in ("one", "two"))
    assert one == two
    assert len(one) == 6


def test_alone_nothing_is_set_up():
    script = """
import sys
from hexapla.parallel import distributed as processes
import numpy as np
rows = np.ones((2, 3))
assert (processes.rank(), processes.count(), processes.is_main(), processes.device()) == (0, 1, True, None)
assert processes.agreed("mine") == "mine"
assert processes.gather(rows)[0] is rows
processes.barrier()
assert not {"torch", "accelerate"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"WORLD_SIZE": "1"})


_SET = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def variables(monkeypatch):
    def put(given):
        for name in _SET:
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    ("given", "several"),
    [
        ({}, False),
        ({"WORLD_SIZE": "2"}, False),
        (_SET, True),
        ({"WORLD_SIZE": "1", "LOCAL_RANK": "0"}, False),
    ],
)
def test_a_launcher_is_known_by_what_it_sets(variables, given, several):
    variables(given)
    assert distributed.launched() == several


@pytest.mark.parametrize("missing", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_what_is_left_over_of_a_launcher_is_refused(variables, missing):
    variables({**_SET, missing: ""})
    with pytest.raises(UserError, match=f"but {missing} is not; `unset WORLD_SIZE LOCAL_RANK`"):
        distributed.launched()


def test_a_long_wait_for_the_others_is_said():
    """Nobody else comes, as when a shell kept all the variables of an earlier launcher."""
    script = """
import logging
logging.basicConfig(format="%(message)s")
from hexapla.parallel import distributed
distributed._PATIENCE = 0.5
distributed.barrier()
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | _SET | {"MASTER_PORT": str(port), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        lines = iter(process.stderr.readline, "")
        assert any(f"process 0 still waits for all 2 at 127.0.0.1:{port}" in line for line in lines)
    finally:
        process.kill()
        process.communicate()
