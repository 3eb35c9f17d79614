"""Refuse a model that falls short of what was accepted; exit status 1 when it does."""

import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hexapla.evaluation.metrics import METRICS, Metric, Scores
from hexapla.io import cache
from hexapla.reporting.terminal import render_table
from hexapla.schema import UserError

_log = logging.getLogger(__name__)


def gate(*, scores: Path, accepted: Path) -> None:
    """Compare a model's scores with the accepted ones, and fail when one falls short.

    Args:
        scores: the JSON file with the model's scores.
        accepted: the JSON file with the accepted scores and their tolerances.
    """
    checks = check_scores(cache.read_json(scores), cache.read_json(accepted), str(accepted))
    rows = [
        (
            check.benchmark
            if check.centering == "none"
            else f"{check.benchmark}, centered: {check.centering}",
            check.metric.title,
            check.metric.show(check.accepted),
            str(check.tolerance),
            check.metric.show(check.now),
            "falls short" if check.falls_short else "holds",
        )
        for check in checks
    ]
    header = ("benchmark", "metric", "accepted", "tolerance", "now", "")
    _log.info("%s", render_table(header, rows, "llrrrl"))
    if any(check.falls_short for check in checks):
        _log.error("If this is meant, change %s in the same commit and say why.", accepted)
        sys.exit(1)


class Check(NamedTuple):
    """An accepted score and the present one."""

    benchmark: str
    centering: str
    metric: Metric
    accepted: float
    tolerance: float
    now: float

    @property
    def falls_short(self) -> bool:
        """Worse than accepted by more than the tolerance; a better score never falls short."""
        worse = self.accepted - self.now if self.metric.better == "higher" else self.now - self.accepted
        return worse > self.tolerance


def check_scores(
    scores: Mapping[str, Mapping[str, Scores]], accepted: Mapping[str, Any], where: str
) -> list[Check]:
    """Compare the accepted scores with the present ones.

    Args:
        scores: those of one model, by benchmark and centering.
        accepted: {benchmark: {centering: {metric: {"accepted": score, "tolerance": in its unit}}}}.
        where: the file that `accepted` came from, for messages.

    Raises:
        UserError: an unknown benchmark, centering or metric, or no two numbers for it.
    """
    checks = []
    for benchmark, centering, key, entry in _flatten(accepted, where):
        if benchmark not in scores:
            raise UserError(f"{where}: benchmark '{benchmark}' has no scores; it has: {', '.join(scores)}")
        if centering not in scores[benchmark]:
            known = ", ".join(scores[benchmark])
            raise UserError(
                f"{where}: {benchmark}: centering '{centering}' was not evaluated; there are: {known}"
            )
        name = f"{benchmark}: {centering}: {key}"
        if key not in METRICS:
            raise UserError(f"{where}: {name}: '{key}' is not one of {', '.join(METRICS)}")
        try:
            bar, tolerance = float(entry["accepted"]), float(entry["tolerance"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{where}: {name}: must have numbers `accepted` and `tolerance`") from None
        now = scores[benchmark][centering].get(key)
        if now is None:
            raise UserError(f"{where}: {name}: the model has no such score")
        checks.append(Check(benchmark, centering, METRICS[key], bar, tolerance, now))
    if not checks:
        raise UserError(f"{where}: no score to check")
    return checks


def _flatten(accepted: Mapping[str, Any], where: str) -> Iterator[tuple[str, str, str, Any]]:
    for benchmark, variants in accepted.items():
        for centering, entries in variants.items():
            if not isinstance(entries, Mapping):
                raise UserError(f"{where}: {benchmark}: {centering}: must be a mapping of metrics")
            for key, entry in entries.items():
                yield benchmark, centering, key, entry
