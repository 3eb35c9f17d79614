import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open

from conftest import ROOT
from hexapla import encoder, samplers, store, training
from hexapla.params import Train
from hexapla.records import Mistake

PROMPTS = {"query": "", "passage": ""}


class Killed(Exception):
    pass


@pytest.fixture
def data(tmp_path, sample_pairs):
    store.write_pairs(tmp_path / "pairs.parquet", sample_pairs)
    table = store.read_pairs(tmp_path / "pairs.parquet")
    index = samplers.index(*(table[name].to_pylist() for name in ("id", "lang", "passage_id")))
    return index, training.Texts(table["question"], table["passage"])


def fit(
    folder, data, steps=12, sampler="hybrid", checkpoints=None, run="run", on_step=lambda _: None, **changes
):
    index, texts = data
    changes = {"learning_rate": 1e-3, "warmup_steps": 2, **changes}
    settings = dataclasses.replace(Train(), steps=steps, batch_size=8, **changes)
    learner = encoder.load(str(folder), prompts=PROMPTS, device="cpu")
    learner.freeze(embeddings=settings.freeze_embeddings, layers=settings.freeze_layers)
    curve = training.train(
        learner,
        texts,
        samplers.Plan(index, sampler=sampler, batch_size=8, seed=1),
        schedule=training.Schedule(settings.learning_rate, settings.warmup_steps, steps),
        objective=training.Objective(32, 64, settings.temperature, settings.two_sided, settings.accumulate),
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        precision=settings.precision,
        checkpoints=training.Checkpoints(checkpoints, run=run, every=4),
        on_step=on_step,
    )
    return learner, curve


def weights(learner):
    return {name: weight.detach().clone() for name, weight in learner.model.named_parameters()}


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("sampler", ["hybrid", "monolingual", "crosslingual"])
def test_training_lowers_the_loss(tiny_folder, data, sampler):
    _, curve = fit(tiny_folder, data, steps=80, sampler=sampler, learning_rate=5e-3, freeze_embeddings=False)
    losses = [step.loss for step in curve]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    kinds = {step.kind for step in curve}
    assert kinds == ({"monolingual", "crosslingual"} if sampler == "hybrid" else {sampler})


def test_frozen_weights_stay_as_they_are(tiny_folder, data):
    before = weights(encoder.load(str(tiny_folder), prompts=PROMPTS, device="cpu"))
    learner, _ = fit(tiny_folder, data, steps=3, freeze_layers=1)
    changed = {name for name, weight in weights(learner).items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if ".layer.1." in name}


def test_the_same_seed_gives_the_same_bits(tiny_folder, data):
    one, other = fit(tiny_folder, data), fit(tiny_folder, data)
    assert equal(weights(one[0]), weights(other[0]))
    assert [step[:5] for step in one[1]] == [step[:5] for step in other[1]]


def test_a_run_that_dies_ends_where_an_undisturbed_one_ends(tiny_folder, data, tmp_path):
    whole, curve = fit(tiny_folder, data)

    def die(step):
        if step.step == 9:
            raise Killed

    kept = tmp_path / "checkpoints"
    with pytest.raises(Killed):
        fit(tiny_folder, data, checkpoints=kept, on_step=die)
    seen = []
    resumed, again = fit(tiny_folder, data, checkpoints=kept, on_step=lambda step: seen.append(step.step))
    assert seen == [8, 9, 10, 11]
    assert equal(weights(whole), weights(resumed))
    assert [step[:5] for step in curve] == [step[:5] for step in again]


def test_a_broken_checkpoint_falls_back_and_another_runs_are_ignored(tiny_folder, data, tmp_path, caplog):
    kept = tmp_path / "checkpoints"
    fit(tiny_folder, data, checkpoints=kept)
    files = sorted(kept.iterdir())
    assert [file.name for file in files] == ["step-000000004.safetensors", "step-000000008.safetensors"]
    files[1].write_bytes(files[1].read_bytes()[:-100])
    seen = []
    fit(tiny_folder, data, checkpoints=kept, on_step=lambda step: seen.append(step.step))
    assert seen[0] == 4
    assert "broken checkpoint" in caplog.text
    seen.clear()
    fit(tiny_folder, data, checkpoints=kept, run="other", on_step=lambda step: seen.append(step.step))
    assert seen[0] == 0


def test_accumulated_parts_are_the_mean_of_their_gradients(tiny_folder, data):
    _, together = fit(tiny_folder, data, steps=3)
    _, parted = fit(tiny_folder, data, steps=3, accumulate=2)
    # Half the negatives: the loss is lower, but it is the same batches and it trains.
    assert [s.kind for s in parted] == [s.kind for s in together]
    assert all(p.loss < t.loss for p, t in zip(parted, together, strict=True))


def test_the_schedule_rises_and_falls_linearly():
    schedule = training.Schedule(peak=1.0, warmup=3, steps=8)
    rates = [schedule.at(step) for step in range(8)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 0.8, 0.6, 0.4, 0.2])


def test_a_precision_that_the_device_lacks_and_a_loss_that_is_no_number(tiny_folder, data):
    if not torch.cuda.is_available():
        with pytest.raises(Mistake, match=r"train\.precision: fp16 is not for this device"):
            fit(tiny_folder, data, precision="fp16")
    with pytest.raises(Mistake, match="the loss is (nan|inf) at step"):
        fit(tiny_folder, data, temperature=1e-45)


def start(folder, work, pairs, **options):
    command = [sys.executable, "-m", "hexapla.stages.train", "--sampler", "hybrid", "--alpha", "0.5"]
    paths = {"pairs": pairs, "model": work / "model", "curve": work / "c.csv", "summary": work / "s.json"}
    paths |= {"checkpoints": work / "kept", "params": work / "params.yaml"}
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["encoder"] = str(folder)
    tree["train"] |= {"steps": 60, "batch_size": 8, "checkpoint_every": 3, "freeze_layers": 1}
    work.mkdir(exist_ok=True)
    (work / "params.yaml").write_text(yaml.safe_dump(tree))
    for name, path in paths.items():
        command += [f"--{name}", str(path)]
    uri = f"sqlite:///{work}/mlflow.db"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_URI": uri}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, **options)


def test_the_stage_killed_in_mid_run_ends_with_the_same_files(tiny_folder, data, tmp_path):
    pairs = tmp_path / "pairs.parquet"
    whole, broken = tmp_path / "whole", tmp_path / "broken"
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
    assert store.sha256(whole / "model") == store.sha256(broken / "model")
    assert json.loads((whole / "s.json").read_text())["steps"] == 60
    assert not list((broken / "kept").glob("step-*"))
    with safe_open(whole / "model" / "model.safetensors", "np") as file:
        assert len(list(file.keys())) > 10


def test_a_missing_table_is_one_line_and_leaves_nothing(tiny_folder, tmp_path):
    process = start(tiny_folder, tmp_path / "work", Path("gone.parquet"))
    _, log = process.communicate(timeout=90)
    assert process.returncode == 2
    assert log.decode().splitlines()[-1].startswith("hexapla train: gone.parquet: not found")
    assert b"Traceback" not in log
    assert not (tmp_path / "work" / "model").exists()
