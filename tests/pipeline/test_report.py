"""The report stage on made-up results: files in, report out, and what MLflow is sent."""

import contextlib
import json

import mlflow
import pytest

from hexapla import tracking
from hexapla.config import ComparisonSettings
from hexapla.pipeline.report import report
from hexapla.schema import UserError
from worlds import summaries, training, written

ALONE = ComparisonSettings(encoders=("small",), recipes=(), seeds=())


@pytest.fixture
def folders(tmp_path):
    made = {name: tmp_path / name for name in ("data", "training", "curves", "judged")}
    for name in ("data", "training", "curves"):
        made[name].mkdir()
    for seed, (name, sampler, alpha) in enumerate(
        (("candidate", "hybrid", 0.5), ("small-untuned", "untuned", None))
    ):
        card = training(name, sampler, alpha)
        written(made["judged"] / name, name, seed, sampler=sampler, alpha=alpha, seed_of=seed)
        (made["training"] / f"{name}.json").write_text(json.dumps(card))
        rows = "0,2.0\n1,0.5\n" if card["steps"] else ""
        (made["curves"] / f"{name}.csv").write_text("step,loss\n" + rows)
    for name, tree in summaries().items():
        (made["data"] / f"{name}.json").write_text(json.dumps(tree))
    return made


def run(folders, out, comparison=ALONE):
    report(
        comparison, **folders, validation=folders["data"] / "validation.json",
        markdown=out / "report.md", html=out / "report.html", pictures=out / "figures",
    )  # fmt: skip


def test_report_page_pictures_and_artifacts(folders, tmp_path, tracking_store, caplog):
    caplog.set_level("INFO")
    with tracking.run("candidate", model_sha256="sha-candidate") as trained:
        pass
    for name in ("one", "two"):
        run(folders, tmp_path / name)
    files = {
        p.relative_to(tmp_path / "one"): p.read_bytes() for p in (tmp_path / "one").rglob("*") if p.is_file()
    }
    assert {str(path) for path in files} == {
        "report.md", "report.html", "figures/.hexapla", "figures/loss.png", "figures/sample-language-pairs.png",
        "figures/sample-matrices.png", "figures/sample-rank-distance.png",
    }  # fmt: skip
    for path, content in files.items():
        assert (tmp_path / "two" / path).read_bytes() == content, path
    page = files[next(path for path in files if path.suffix == ".html")].decode()
    assert page.count("data:image/png;base64,") == 4
    assert "mAP" in caplog.text
    client = mlflow.MlflowClient()
    (untuned,) = client.search_runs(
        [client.get_run(trained.id).info.experiment_id], "tags.model_sha256 = 'sha-small-untuned'"
    )
    scores = json.loads((folders["judged"] / "small-untuned" / "scores.json").read_text())
    assert untuned.data.metrics["sample/map_multi"] == scores["sample"]["none"]["map_multi"], (
        "its training was cached: the report opens its run"
    )
    assert untuned.data.params["sampler"] == "untuned"
    assert len(client.list_artifacts(trained.id, "report/figures")) == 4


def test_quality_that_was_measured_gets_its_picture(folders, tmp_path, monkeypatch):
    silent = tracking.Run()
    silent.alive = False
    monkeypatch.setattr(tracking, "run", lambda *_, **__: contextlib.nullcontext(silent))
    path = folders["data"] / "translate.json"
    reported = {"counted": 9, "quantiles": [0.8, 1.0, 1.1, 1.2, 1.5]}
    tree = json.loads(path.read_text()) | {"quality": {"de": {"length_ratio": reported}}}
    path.write_text(json.dumps(tree))
    run(folders, tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "quality.png").is_file()
    assert (tmp_path / "out" / "report.html").read_text().count("data:image/png;base64,") == 5


def test_a_missing_file_is_named_before_anything_is_written(folders, tmp_path):
    (folders["judged"] / "small-untuned" / "scores.json").unlink()
    with pytest.raises(UserError, match=r"judged/small-untuned/scores\.json: not found"):
        run(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_seeds_are_averaged(folders, tmp_path, tracking_store):
    card = {"sampler": "monolingual", "seed_of": 0}
    for seed in (13, 14):
        name = f"small-monolingual-{seed}"
        written(folders["judged"] / name, name, seed, seed=seed, **card)
        (folders["training"] / f"{name}.json").write_text(json.dumps(training(name, "monolingual", None)))
        (folders["curves"] / f"{name}.csv").write_text("step,loss\n0,2.0\n")
    run(
        folders,
        tmp_path / "out",
        ComparisonSettings(encoders=("small",), recipes=("monolingual",), seeds=(13, 14)),
    )
    text = (tmp_path / "out" / "report.md").read_text()
    counts = "candidate (hybrid, α 0.5) 1, small-untuned 1, small-monolingual-13 2"
    assert f"Figures are averages over seeds ({counts}); ±" in text
