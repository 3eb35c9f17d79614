"""The training stage in this process: what its files and MLflow say."""

import mlflow
import numpy as np
import pytest
import torch
import yaml

from conftest import ROOT
from hexapla import config
from hexapla.io import cache, tables
from hexapla.modeling import embed, encoder
from hexapla.pipeline.train import train
from hexapla.schema import UserError
from hexapla.training import early_stopping, gradcache


@pytest.fixture
def stage(tiny_folder, sample_pairs, tmp_path, tracking_store):
    """Runs the stage with some settings; returns its summary."""
    pairs = tmp_path / "pairs.parquet"
    tables.write_pairs(pairs, sample_pairs)

    def run(rows=None, top=None, **settings):
        if rows is not None:
            tables.write_pairs(pairs, rows)
        tree = yaml.safe_load((ROOT / "params.yaml").read_text()) | (top or {})
        tree["encoders"]["e5-small"]["model"] = str(tiny_folder)
        tree["train"] |= {"steps": 6, "batch_size": 8, "checkpoint_every": 50, "freeze_layers": 1}
        tree["train"] |= {"precision": "fp32", "learning_rate": 1e-3, "centering_texts": 4} | settings
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
        train(
            config.load(tmp_path / "params.yaml"), pairs=pairs, model=tmp_path / "model", curve=tmp_path / "c.csv",
            summary=tmp_path / "s.json", checkpoints=tmp_path / "kept",
        )  # fmt: skip
        return cache.read_json(tmp_path / "s.json")

    return run


def test_a_language_that_fills_no_batch_is_named_and_stands_in_the_summary(stage, sample_pairs, caplog):
    few = [pair for pair in sample_pairs if pair.lang != "zh" or pair.id in {p.id for p in sample_pairs[:3]}]
    summary = stage(few, top={"sampler": "monolingual"})
    assert summary["left_out_languages"] == {"zh": 3}
    assert "'zh' has 3 different passages, too few for a monolingual batch of 8" in caplog.text
    assert stage(sample_pairs)["left_out_languages"] == {}


def test_a_training_that_ran_out_of_memory_goes_on_with_less_and_is_tracked_to_its_end(stage, monkeypatch):
    real, count = gradcache.add_gradients, iter(range(100))

    def full(*arguments, **options):
        if next(count) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments, **options)

    monkeypatch.setattr(gradcache, "add_gradients", full)
    with pytest.raises(UserError, match=r"lower train\.kept_tokens \(4096\)"):
        stage(kept_tokens=4096, checkpoint_every=2)
    stage(kept_tokens=0, checkpoint_every=2)
    client = mlflow.MlflowClient()
    [run] = client.search_runs([e.experiment_id for e in client.search_experiments()])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted({point.step for point in history}) == list(range(6))
    assert run.info.status == "FINISHED"
    assert run.data.tags["train.kept_tokens"] == "0"
    assert run.data.params["batch_size"] == "8"


@pytest.mark.parametrize("rank", [0, 2])
def test_early_stopping_scores_the_weights_that_are_saved(stage, sample_pairs, tmp_path, monkeypatch, rank):
    scored = []

    def score(benchmark, queries, passages):
        scored.append((benchmark, queries))
        return float(len(scored))

    monkeypatch.setattr(early_stopping, "multilingual_map", score)
    stage(sample_pairs, holdout=4, validate_every=3, interpolate=0.5, lora_rank=rank)
    benchmark, queries = scored[-1]
    saved = encoder.load(str(tmp_path / "model"), prompts={}, device="cpu")
    texts = [query.text for query in benchmark.queries]
    again = embed.encode(saved, texts, "query", config.Train().query_tokens)
    np.testing.assert_allclose(again, queries, atol=1e-5)
