import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient
from safetensors import safe_open

from conftest import ROOT
from hexapla.io import hashing, tables
from hexapla.modeling import encoder
from hexapla.schema import UserError
from hexapla.training import gradcache, samplers, trainer
from hexapla.training.gradcache import MemoryLimits
from hexapla.training.trainer import Schedule
from ranks import run
from training_worlds import Texts, codes, fit, load, timeless, weights


class Killed(Exception):
    pass


@pytest.fixture
def data(sample_pairs):
    columns = [
        [getattr(pair, name) for pair in sample_pairs] for name in ("id", "lang", "passage_id", "source")
    ]
    return samplers.build_index(*map(codes, columns)), Texts(sample_pairs)


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def rates(shape):
    return [Schedule(1.0, 3, 8, shape).at(step) for step in range(8)]


def test_every_shape_rises_linearly_and_falls_its_own_way():
    rise = [0.25, 0.5, 0.75]
    assert rates("linear") == pytest.approx([*rise, 1, 0.8, 0.6, 0.4, 0.2])
    assert rates("constant") == pytest.approx([*rise, 1, 1, 1, 1, 1])
    assert rates("cosine") == pytest.approx([*rise, 1, 0.904508, 0.654508, 0.345492, 0.095492], abs=1e-6)


def test_without_a_warm_up_it_begins_at_the_peak():
    assert Schedule(2.0, 0, 4).at(0) == 2


@pytest.mark.parametrize("sampler", ["hybrid", "monolingual", "crosslingual", "parallel"])
def test_training_lowers_the_loss(tiny_folder, data, sampler):
    _, curve = fit(tiny_folder, data, steps=60, sampler=sampler, rate=5e-3, embeddings=False)
    losses = [step.loss for step in curve]
    # With several positives the loss can't fall below the logarithm of their number.
    floor = np.log(2) if sampler == "parallel" else 0
    assert np.mean(losses[-10:]) - floor < 0.7 * (np.mean(losses[:5]) - floor)
    kinds = {step.kind for step in curve}
    assert kinds == ({"monolingual", "crosslingual"} if sampler == "hybrid" else {sampler})


def test_what_a_step_tells_is_so(tiny_folder, data):
    _, curve = fit(tiny_folder, data, steps=3)
    for step in curve:
        assert 0 < step.gradient_norm < 1000
        assert 0 < step.padding < 0.5
        assert step.tokens_per_second > 16 * step.pairs_per_second / 8
        assert 0.1 < step.memory_gib < 64


def test_waiting_for_data_counts_in_the_rates(tiny_folder, data):
    class Slow(Texts):
        def texts(self, column, rows):
            time.sleep(0.15)
            return super().texts(column, rows)

    index, texts = data
    _, curve = fit(tiny_folder, (index, Slow(texts.pairs)), steps=4)
    # Each step waits for two columns.
    assert all(step.pairs_per_second < 8 / 0.25 for step in curve)


def test_frozen_weights_stay_as_they_are(tiny_folder, data):
    before = weights(load(tiny_folder))
    learner, _ = fit(tiny_folder, data, steps=3, layers=1)
    changed = {name for name, weight in weights(learner).items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if ".layer.1." in name}


def test_the_same_seed_gives_the_same_bits_whatever_memory_there_is(tiny_folder, data):
    one, other = fit(tiny_folder, data), fit(tiny_folder, data)
    assert equal(weights(one[0]), weights(other[0]))
    assert timeless(one[1]) == timeless(other[1])
    narrow = (
        fit(tiny_folder, data, memory=MemoryLimits(256, 10**9)),
        fit(tiny_folder, data, memory=MemoryLimits(256, 0)),
    )
    assert equal(*(weights(learner) for learner, _ in narrow))


def test_hard_negatives_take_part(tiny_folder, data):
    _, without = fit(tiny_folder, data, steps=2)
    _, one = fit(tiny_folder, data, steps=2, negatives=1)
    _, two = fit(tiny_folder, data, steps=2, negatives=2)
    # More to tell apart: before the first step has changed a weight, the loss is higher.
    assert without[0].loss < one[0].loss < two[0].loss


def test_a_run_that_dies_ends_where_an_undisturbed_one_ends(tiny_folder, data, tmp_path):
    whole, curve = fit(tiny_folder, data)
    kept = tmp_path / "checkpoints"

    def die(step):
        if step.step == 9:
            raise Killed

    with pytest.raises(Killed):
        fit(tiny_folder, data, checkpoints=kept, on_step=die)
    seen = []
    resumed, again = fit(tiny_folder, data, checkpoints=kept, on_step=lambda step: seen.append(step.step))
    assert seen == [8, 9, 10, 11]
    assert equal(weights(whole), weights(resumed))
    assert timeless(curve) == timeless(again)


def test_a_broken_checkpoint_falls_back_to_the_one_before(tiny_folder, data, tmp_path, caplog):
    kept = tmp_path / "checkpoints"
    fit(tiny_folder, data, checkpoints=kept)
    files = sorted(kept.iterdir())
    assert [file.name for file in files] == ["step-000000004.safetensors", "step-000000008.safetensors"]
    files[1].write_bytes(files[1].read_bytes()[:-100])
    seen = []
    fit(tiny_folder, data, checkpoints=kept, on_step=lambda step: seen.append(step.step))
    assert seen[0] == 4
    assert "broken checkpoint" in caplog.text


def test_early_stopping_takes_the_best_weights_and_survives_being_killed(tiny_folder, data, tmp_path):
    def validated(scores, **options):
        reported, at_score, left = [], [], iter(scores)

        def rule(learner):
            def score():
                at_score.append(weights(learner))
                return next(left)

            return trainer.Validation(every=2, patience=2, score=score)

        return (
            *fit(tiny_folder, data, rule=rule, checkpoints=tmp_path, on_step=reported.append, **options),
            reported,
            at_score,
        )

    learner, curve, _, at_score = validated([0.1, 0.5, 0.4, 0.3])
    assert len(curve) == 8
    assert equal(weights(learner), at_score[1])
    assert not equal(weights(learner), at_score[3])
    again, resumed, reported, _ = validated([])
    assert reported == []
    assert timeless(resumed) == timeless(curve)
    assert equal(weights(again), weights(learner))


_SCRIPT = """
import sys
from pathlib import Path

from hexapla.io import tables
from hexapla.parallel import distributed
from hexapla.schema import UserError
from hexapla.training import samplers
from training_worlds import codes, fit, Texts, timeless, weights
import torch

rows = list(tables.iter_pairs(tables.read_pairs(Path(sys.argv[2]) / "pairs.parquet")))
columns = [[getattr(pair, name) for pair in rows] for name in ("id", "lang", "passage_id", "source")]
data = samplers.build_index(*map(codes, columns)), Texts(rows)
kept = Path(sys.argv[2]) / "kept"
options = {"steps": 6, "sampler": "parallel", "dropout": 0.0, "negatives": 1}
learner, curve = fit(sys.argv[1], data, checkpoints=kept, **options)
torch.save((timeless(curve), weights(learner)), Path(sys.argv[2]) / f"{distributed.rank()}.pt")
try:
    fit(sys.argv[1], data, size=6 + distributed.count() // 2, sampler="monolingual")
except UserError as mistake:
    assert "train.batch_size: 7 can't be divided among 2 processes" in str(mistake)
else:
    raise AssertionError
"""


@pytest.mark.slow
def test_two_processes_have_the_curve_and_the_weights_of_one(tiny_folder, data, sample_pairs, tmp_path):
    tables.write_pairs(tmp_path / "pairs.parquet", sample_pairs)
    run(_SCRIPT, tiny_folder, tmp_path, count=2)
    learner, curve = fit(tiny_folder, data, steps=6, sampler="parallel", dropout=0.0, negatives=1)
    for rank in range(2):
        theirs, found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for one, other in zip(timeless(curve), theirs, strict=True):
            assert one[:2] == tuple(other[:2])
            assert one[2:] == pytest.approx(other[2:], rel=1e-3)
        for name, weight in weights(learner).items():
            torch.testing.assert_close(found[name], weight, atol=2e-4, rtol=1e-3)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["step-000000004.safetensors"]


@pytest.mark.parametrize("failing", ["loss", "memory"])
def test_what_goes_wrong_in_a_step_is_one_line_and_keeps_the_last_checkpoint(
    tiny_folder, data, tmp_path, monkeypatch, failing
):
    real = gradcache.add_gradients
    count = iter(range(100))

    def broken(*arguments, **options):
        loss, area = real(*arguments, **options)
        if next(count) < 6:
            return loss, area
        if failing == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return float("nan"), area

    monkeypatch.setattr(gradcache, "add_gradients", broken)
    expected = {
        "loss": r"loss nan, gradient norm [\d.]+ at step 6; lower train\.learning_rate",
        "memory": r"out of memory at step 6; lower train\.kept_tokens \(\d+\), then train\.forward_tokens",
    }
    with pytest.raises(UserError, match=expected[failing]):
        fit(tiny_folder, data, checkpoints=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["step-000000004.safetensors"]


def arguments(folder, work, pairs):
    """The words of the command that trains; its settings are written to `work`."""
    words = ["stage", "train"]
    paths = {"pairs": pairs, "model": work / "model", "curve": work / "c.csv", "summary": work / "s.json"}
    paths |= {"checkpoints": work / "kept", "params": work / "params.yaml"}
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["encoders"]["e5-small"]["model"] = str(folder)
    tree["train"] |= {"steps": 24, "batch_size": 8, "checkpoint_every": 3, "freeze_layers": 1}
    tree["train"] |= {"precision": "fp32", "holdout": 4, "validate_every": 10}
    work.mkdir(exist_ok=True)
    (work / "params.yaml").write_text(yaml.safe_dump(tree))
    for name, path in paths.items():
        words += [f"--{name}", str(path)]
    return words


def start(folder, work, pairs, **options):
    command = [sys.executable, "-m", "hexapla", *arguments(folder, work, pairs)]
    uri = f"sqlite:///{work}/mlflow.db"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_URI": uri}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, **options)


def test_the_stage_killed_in_mid_run_ends_with_the_same_files(
    tiny_folder, sample_pairs, tmp_path, empty_store
):
    pairs = tmp_path / "pairs.parquet"
    tables.write_pairs(pairs, sample_pairs)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for work in (whole, broken):
        work.mkdir()
        shutil.copy(empty_store, work)
    undisturbed = start(tiny_folder, whole, pairs)
    victim = start(tiny_folder, broken, pairs)
    until = time.monotonic() + 90
    while not list((broken / "kept").glob("step-*")) and victim.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert not (broken / "model").exists()
    undisturbed.communicate(timeout=120)
    assert undisturbed.returncode == 0
    again = start(tiny_folder, broken, pairs)
    _, log = again.communicate(timeout=120)
    assert again.returncode == 0, log
    assert b"continuing at step" in log
    for name in ("c.csv", "s.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()
    assert hashing.sha256(whole / "model") == hashing.sha256(broken / "model")
    assert json.loads((whole / "s.json").read_text())["steps"] == 24
    assert not list((broken / "kept").glob("step-*"))
    with safe_open(whole / "model" / "model.safetensors", "np") as file:
        assert len(list(file.keys())) > 10
    for work in (whole, broken):
        client = MlflowClient(f"sqlite:///{work}/mlflow.db")
        (tracked,) = client.search_runs(["1"])
        for metric, steps in (("train/loss", range(24)), ("validation/map", [10, 20, 24])):
            history = client.get_metric_history(tracked.info.run_id, metric)
            assert sorted(point.step for point in history) == list(steps), (work.name, metric)


def test_a_missing_table_is_one_line_and_leaves_nothing(tiny_folder, tmp_path, hexapla):
    status, _, errors = hexapla(*arguments(tiny_folder, tmp_path / "work", Path("gone.parquet")))
    assert status == 2
    assert errors.splitlines()[-1].startswith("hexapla stage train: gone.parquet: not found")
    assert "Traceback" not in errors
    assert not (tmp_path / "work" / "model").exists()


def test_a_pooling_that_leaves_prompts_out_leaves_out_those_of_its_side(tiny_folder, data, monkeypatch):
    from sentence_transformers.sentence_transformer.modules import Pooling

    def load_without_prompts(folder):
        learner = encoder.load(
            str(folder), prompts={"query": "a longer prompt than that: ", "passage": "text: "}, device="cpu"
        )
        learner.model[1] = Pooling(32, pooling_mode="mean", include_prompt=False)
        return learner

    monkeypatch.setattr("training_worlds.load", load_without_prompts)
    _, curve = fit(tiny_folder, data, steps=1, sampler="monolingual", dropout=0.0)
    index, texts = data
    batch = samplers.BatchPlan(index, sampler="monolingual", batch_size=8, seed=1, languages_per_id=2).at(0)
    untrained = load_without_prompts(tiny_folder)
    queries = texts.texts("question", index.rows[batch.items, batch.query_languages])
    passages = texts.texts("passage", index.rows[batch.items, batch.passage_languages])
    sides = untrained.encode(queries, "query", 32, 4), untrained.encode(passages, "passage", 64, 4)
    scores = torch.from_numpy(sides[0] @ sides[1].T) / 0.02
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(8)).item()
    assert curve[0].loss == pytest.approx(expected, rel=1e-4)


def test_prompts_of_two_lengths_share_a_forward_pass_where_pooling_keeps_them(tiny_folder):
    """Otherwise a micro-batch with both sides would draw other dropout than before poolings were distinguished."""
    prompts = {"query": "a longer prompt than that: ", "passage": "text: "}
    learner = encoder.load(str(tiny_folder), prompts=prompts, device="cpu")
    extra = trainer._find_extra_features(learner)
    assert extra["query"] == extra["passage"]
    learner.model[1].include_prompt = False
    extra = trainer._find_extra_features(learner)
    assert extra["query"]["prompt_length"] > extra["passage"]["prompt_length"] > 0
