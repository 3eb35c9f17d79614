"""Refuse a model that falls short of what was accepted; exit status 1 when it does."""

import logging
import sys
from pathlib import Path

from hexapla.evaluation import scoreboard
from hexapla.io import cache
from hexapla.reporting.terminal import render_table

_log = logging.getLogger(__name__)


def gate(*, scores: Path, accepted: Path) -> None:
    """Compare a model's scores with the accepted ones, and fail when one falls short.

    Args:
        scores: the JSON file with the model's scores.
        accepted: the JSON file with the accepted scores and their tolerances.
    """
    checks = scoreboard.check(cache.read_json(scores), cache.read_json(accepted), str(accepted))
    rows = [
        (
            check.benchmark
            if check.centering == "none"
            else f"{check.benchmark}, centered: {check.centering}",
            check.measure.title,
            check.measure.show(check.accepted),
            str(check.tolerance),
            check.measure.show(check.now),
            "falls short" if check.short else "holds",
        )
        for check in checks
    ]
    header = ("benchmark", "measure", "accepted", "tolerance", "now", "")
    _log.info("%s", render_table(header, rows, "llrrrl"))
    if any(check.short for check in checks):
        _log.error("If this is meant, change %s in the same commit and say why.", accepted)
        sys.exit(1)
