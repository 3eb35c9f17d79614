import logging

import mlflow
import pytest

from hexapla import tracking


def runs():
    client = mlflow.MlflowClient(tracking_uri=tracking.store_uri()[0])
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    return client, client.search_runs([experiment.experiment_id], order_by=["start_time ASC"])


def test_one_run_a_model_found_again_by_its_hash(tracking_store, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "train")
    with tracking.run("candidate") as trained:
        trained.parameters({"sampler": "hybrid"})
        for step in range(3):
            trained.metrics({"train/loss": 1.0 / (step + 1)}, step)
        trained.tags({tracking.MODEL_TAG: "abc"})
    ended = runs()[1][0].info.end_time
    monkeypatch.setenv("DVC_STAGE", "evaluate")
    with tracking.run("candidate", model_sha256="abc") as judged:
        judged.metrics({"sample/map_multi": 0.5})
        (tmp_path / "report.md").write_text("r")
        judged.artifacts([tmp_path / "report.md"], "report")
    with tracking.run("other", model_sha256="def") as other:
        assert other.id not in ("", trained.id)
    with tracking.run("monolingual", model_sha256="abc") as twin:
        assert twin.id != trained.id
    assert judged.id == trained.id
    client, found = runs()
    assert [run.info.run_name for run in found] == ["candidate", "other", "monolingual"]
    data = found[0].data
    assert data.params == {"sampler": "hybrid"}
    assert data.metrics["sample/map_multi"] == 0.5
    assert data.tags["dvc.stage"] == "train"
    assert [m.step for m in client.get_metric_history(trained.id, "train/loss")] == [0, 1, 2]
    assert [a.path for a in client.list_artifacts(trained.id, "report")] == ["report/report.md"]
    assert found[0].info.status == "FINISHED"
    assert found[0].info.end_time == ended, "the training's duration stays"


def test_a_run_that_was_killed_is_taken_up(tracking_store):
    with pytest.raises(RuntimeError), tracking.run("candidate") as first:
        raise RuntimeError
    with tracking.run("candidate", resume=first.id) as second:
        pass
    assert second.id == first.id
    with tracking.run("candidate", resume="0" * 32) as third:
        pass
    assert third.id not in ("", first.id)


def test_a_server_that_is_down_costs_one_warning(monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hunter2@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level(logging.WARNING), tracking.run("candidate") as run:
        run.metrics({"loss": 1.0}, 1)
        run.tags({"a": "b"})
    warnings = [record for record in caplog.records if record.name == "hexapla.tracking"]
    assert len(warnings) == 1
    assert "going on without" in warnings[0].getMessage()
    assert "hunter2" not in caplog.text


def test_temporary_workspaces_log_to_the_repository_that_they_came_from(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert tracking.store_uri() == (f"sqlite:///{tmp_path / 'mlflow.db'}", (tmp_path / "mlruns").as_uri())


def test_what_was_measured_is_found_again_and_no_store_is_made_or_asked_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    nothing = tracking.measured("rate", "params.encoder = 'a'")
    assert nothing is None
    assert not list(tmp_path.iterdir())
    for rates in ((3.0, 5.0), (4.0, 7.0), ()):
        with tracking.run("x") as tracked:
            tracked.parameters({"encoder": "a"})
            for step, rate in enumerate(rates):
                tracked.metrics({"rate": rate}, step)
    assert tracking.measured("rate", "params.encoder = 'a'") == 7.0
    assert tracking.measured("rate", "params.encoder = 'b'") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking.measured("rate", "params.encoder = 'a'") is None


@pytest.mark.parametrize(
    ("given", "uri", "artifacts"),
    [
        ("sqlite:///runs.db", "sqlite:///{root}/runs.db", True),
        ("sqlite:////data/runs.db", "sqlite:////data/runs.db", False),
        ("runs", "file://{root}/runs", False),
        ("./a/runs", "file://{root}/a/runs", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000", False),
        ("databricks", "databricks", False),
    ],
)
def test_a_relative_address_is_kept_when_dvc_removes_its_workspace(
    tmp_path, monkeypatch, given, uri, artifacts
):
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "temporary")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    expected = uri.format(root=tmp_path), (tmp_path / "mlruns").as_uri() if artifacts else None
    assert tracking.store_uri() == expected


def test_a_run_that_the_environment_names_is_left_alone(tracking_store, monkeypatch):
    with tracking.run("first") as first:
        first.parameters({"of": "first"})
    monkeypatch.setenv("MLFLOW_RUN_ID", first.id)
    with tracking.run("second", model_sha256="ab") as second:
        second.metrics({"score": 1.0})
    client = mlflow.MlflowClient(tracking_store)
    assert second.id != first.id
    assert client.get_run(first.id).info.run_name == "first"
    assert client.get_run(first.id).data.metrics == {}
