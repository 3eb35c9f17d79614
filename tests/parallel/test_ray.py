"""On a real cluster of two nodes, and on one that is started for the run."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import chores
import hexapla
from conftest import SAMPLE, sample
from hexapla.config import Executor, TranslateWithApertium
from hexapla.io import hashing, tables
from hexapla.parallel import executors
from hexapla.parallel import ray as ray_executor
from hexapla.parallel.tasks import Task
from hexapla.pipeline.translate import translate
from hexapla.schema import ORIGINAL, Pair, UserError

TESTS = Path(__file__).parents[1]


def saved_by(function, given, executor, after=lambda: None):
    saved = {}

    def save(task, result):
        saved[task.key] = result
        after()

    failures = executors.run(function, given, executor, save=save)
    return saved, failures


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each; tasks on them find these tests' functions."""
    pytest.importorskip("ray")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *([before] if before else [])])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    nodes = Cluster(initialize_head=True, head_node_args=node)
    nodes.other = nodes.add_node(**node)
    yield nodes
    nodes.shutdown()
    del os.environ["PYTHONPATH"]
    if before:
        os.environ["PYTHONPATH"] = before


def test_tasks_that_raise(cluster, tmp_path):
    given = [Task(f"k{n}", "", (str(tmp_path), n, n), 1) for n in range(5)]
    there = saved_by(chores.fallible, given, Executor(kind="ray", address=cluster.address, retries=2))
    assert there[0] == {f"k{n}": n * n for n in range(3)}
    assert [(each.task.key, each.error) for each in there[1]] == [
        ("k3", "ValueError: 3 is not ready"),
        ("k4", "ValueError: 4 is not ready"),
    ]
    assert [chores.tries(tmp_path, n) for n in range(5)] == [1, 2, 3, 3, 3]


def test_gpus_that_are_not_there(cluster):
    given = [Task("k", "", (2,), 1)]
    executor = Executor(kind="ray", address=cluster.address, gpus=0.5)
    with pytest.raises(UserError, match=r"executor\.gpus: is 0\.5, but the cluster has no GPU"):
        saved_by(chores.square, given, executor)
    saved = {}
    executors.run(chores.square, given, executor, save=lambda t, r: saved.update({t.key: r}), on_gpu=False)
    assert saved == {"k": 4}


@pytest.mark.slow
def test_results_are_the_same_when_a_node_dies_half_way(cluster, tmp_path):
    """The node's tasks last for minutes, so it is certain that one is lost with it."""
    victim = cluster.other.node_id
    given = [Task(f"k{n}", "", (str(tmp_path), n, victim, 0.1), 1) for n in range(16)]
    killed = threading.Event()

    def kill():
        if (tmp_path / victim).is_file() and not killed.is_set():
            killed.set()
            cluster.remove_node(cluster.other, allow_graceful=False)

    executor = Executor(kind="ray", address=cluster.address, retries=1)
    there = saved_by(chores.on_node, given, executor, after=kill)
    assert killed.is_set()
    lost = {int(line) for line in (tmp_path / victim).read_text().split()}
    survivor = next(file for file in tmp_path.iterdir() if file.name != victim)
    assert lost <= {int(line) for line in survivor.read_text().split()}
    assert there == saved_by(
        chores.square, [Task(f"k{n}", "", (n,), 1) for n in range(16)], Executor(workers=1)
    )


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("apertium") is None, reason="wants `apt-get install apertium apertium-eng-spa`"
)
def test_translations_are_the_same_when_a_node_dies_half_way(cluster, tmp_path, monkeypatch):
    rows = [
        Pair(**row, source="s", lang="en", passage_id=row["id"], engine=ORIGINAL) for row in sample("en")[:48]
    ]
    tables.write_pairs(tmp_path / "raw.parquet", rows)
    settings = TranslateWithApertium(shard_texts=8, cosine="", languages=("es",))
    victim = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    shards = {}

    def translated(name, executor):
        monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / name))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
        paths = {"pairs": tmp_path / "raw.parquet", "sample": SAMPLE, "summary": tmp_path / f"{name}.json"}
        translate(settings, executor, out=tmp_path / f"{name}-out", **paths)
        shards[name] = {file.name for file in (tmp_path / name / "translate").rglob("*.parquet")}
        return hashing.sha256(tmp_path / f"{name}-out")

    def kill():
        while len([*(tmp_path / "there" / "translate").rglob("*.parquet")]) < 4:
            time.sleep(0.01)
        cluster.remove_node(victim, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    there = translated("there", Executor(kind="ray", address=cluster.address, retries=2))
    killer.join(timeout=5)
    assert not killer.is_alive()
    assert there == translated("here", Executor(workers=1))
    assert shards["there"] == shards["here"]
    assert len(shards["here"]) > 12


@pytest.mark.slow
def test_a_cluster_that_is_started_for_the_run():
    """It listens on this machine only, speaks of nothing on stdout, and leaves nothing behind."""
    pytest.importorskip("ray")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), *sys.path])
    program = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    reported = json.loads(program.stdout)
    assert reported["saved"] == {f"k{n}": n * n for n in range(4)}
    assert reported["listening"]
    assert {place.removeprefix("::ffff:") for place in reported["listening"]} == {"127.0.0.1"}
    assert not Path(reported["scratch"]).exists()
    assert "Traceback" not in program.stderr
    assert "Warning" not in program.stderr


def test_the_whole_package_goes_along():
    given = {}
    ray = SimpleNamespace(
        init=lambda **options: given.update(options), shutdown=lambda: None,
        exceptions=SimpleNamespace(RayError=OSError),
    )  # fmt: skip
    with ray_executor._connected(ray, "", 1):
        assert given["runtime_env"]["py_modules"] == [str(Path(hexapla.__file__).parent)]


def test_nothing_answers():
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(UserError, match=f"executor.address '{address}': nothing answers"):
            saved_by(chores.square, [Task("k", "", (1,), 1)], Executor(kind="ray", address=address))
        assert time.monotonic() - began < 10


def test_no_ray(monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # is set on the way, and goes with the test
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'hexapla\[ray\]'"):
        saved_by(chores.square, [Task("k", "", (1,), 1)], Executor(kind="ray"))


@pytest.mark.parametrize(
    ("resources", "gpus", "slots"),
    [({"CPU": 8.0}, 0, 8), ({"CPU": 64.0, "GPU": 8.0}, 1, 8), ({"CPU": 4.0, "GPU": 8.0}, 0.5, 4), ({}, 1, 1)],
)
def test_as_many_tasks_as_cores_and_gpus_allow(resources, gpus, slots):
    assert ray_executor._slots(resources, gpus) == slots


def main():
    """A program that starts a cluster of its own, and says what it saw."""
    import psutil

    reported = {}

    def look():
        mine = {process.pid for process in psutil.Process().children(recursive=True)} | {os.getpid()}
        open_ = [
            each for each in psutil.net_connections("tcp") if each.pid in mine and each.status == "LISTEN"
        ]
        reported["listening"] = sorted({each.laddr.ip for each in open_})
        from ray._private.worker import _global_node

        reported["scratch"] = _global_node.get_temp_dir_path()

    given = [Task(f"k{n}", "", (n,), 1) for n in range(4)]
    reported["saved"], failures = saved_by(chores.square, given, Executor(kind="ray", workers=2), after=look)
    assert not failures
    sys.stdout.write(json.dumps(reported))


if __name__ == "__main__":
    main()
