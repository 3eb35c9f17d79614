import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from conftest import LANGUAGES, sample
from hexapla.parallel import distributed
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


@pytest.mark.parametrize(
    ("given", "several"),
    [({}, False), ({"WORLD_SIZE": "2"}, False), ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, True),
     ({"WORLD_SIZE": "1", "LOCAL_RANK": "0"}, False)],
)  # fmt: skip
def test_a_launcher_is_known_by_what_it_sets(monkeypatch, given, several):
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert distributed.launched() == several
