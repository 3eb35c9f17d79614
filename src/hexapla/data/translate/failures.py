"""Tasks that were given up: kept aside with their errors, and told in one line when all else is done."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hexapla.io import cache
from hexapla.parallel.executors import Failure
from hexapla.schema import UserError

_SHOWN = 200


def folder(stage: str) -> Path:
    """Where a stage's failed tasks are told of, a file each: those of its last run."""
    return cache.cache_root() / stage / "failed"


def clear(stage: str) -> None:
    """Forget those of earlier runs, as the stage begins."""
    shutil.rmtree(folder(stage), ignore_errors=True)


def refuse(stage: str, failures: Sequence[Failure], unit: str) -> None:
    """Write down what failed and why; then raise UserError, if anything did.

    Args:
        stage: in whose folder of the cache.
        failures: all of them.
        unit: what the tasks' sizes count.
    """
    for failed in failures:
        key, label, _, size = failed.task
        cache.write_json(folder(stage) / f"{key}.json", {"label": label, unit: size, "error": failed.error})
    if failures:
        lost = Counter(failed.task.label for failed in failures)
        told = ", ".join(f"{label} {count}" for label, count in lost.items())
        raise UserError(
            f"{stage}: {len(failures)} pieces of work failed ({told}), the first with: "
            f"{failures[0].error[:_SHOWN]}; {folder(stage)} tells of all; what succeeded is kept, so mend "
            "this and run it again"
        )
