"""The report stage on made-up results: files in, report out, MLflow told."""

import json

import mlflow
import pytest

from hexapla import tracking
from hexapla.records import Mistake
from hexapla.stages.report import report
from worlds import model, summaries


@pytest.fixture
def folders(tmp_path):
    names = ("data", "training", "curves", "scores", "languages")
    made = {name: tmp_path / name for name in names}
    for folder in made.values():
        folder.mkdir()
    for each in (model("candidate"), model("untuned", map_multi=0.2)):
        trees = {"training": each.training, "scores": each.scores, "languages": each.languages}
        for name, tree in trees.items():
            (made[name] / f"{each.name}.json").write_text(json.dumps(tree))
        rows = "0,2.0\n1,0.5\n" if each.training["steps"] else ""
        (made["curves"] / f"{each.name}.csv").write_text("step,loss\n" + rows)
    for name, tree in summaries().items():
        (made["data"] / f"{name}.json").write_text(json.dumps(tree))
    return made


def run(folders, out):
    report(
        ("untuned",), **folders, validation=folders["data"] / "validation.json", markdown=out / "report.md",
        html=out / "report.html", pictures=out / "figures",
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
        "report.md", "report.html", "figures/loss.png", "figures/sample-language-pairs.png",
        "figures/sample-rank-distance.png",
    }  # fmt: skip
    for path, content in files.items():
        assert (tmp_path / "two" / path).read_bytes() == content, path
    page = files[next(path for path in files if path.suffix == ".html")].decode()
    assert page.count("data:image/png;base64,") == 3
    assert "mAP" in caplog.text
    client = mlflow.MlflowClient()
    (untuned,) = client.search_runs(
        [client.get_run(trained.id).info.experiment_id], "tags.model_sha256 = 'sha-untuned'"
    )
    assert untuned.data.metrics["sample/map_multi"] == 0.2, (
        "its training was cached: the report opens its run"
    )
    assert untuned.data.params["sampler"] == "untuned"
    assert len(client.list_artifacts(trained.id, "report/figures")) == 3


def test_a_missing_file_is_named_before_anything_is_written(folders, tmp_path):
    (folders["scores"] / "untuned.json").unlink()
    with pytest.raises(Mistake, match=r"scores/untuned\.json: not found"):
        run(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()
