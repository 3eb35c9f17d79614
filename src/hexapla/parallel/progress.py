"""How far tasks are: a line that is kept up to date on a terminal, else one in the log now and then."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

EVERY = 30.0
"""Seconds between lines in the log."""
_log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Counts of what is done, of all and by label (such as a language)."""

    describe: str
    unit: str
    totals: Counter[str]
    bar: "tqdm[Any]"
    done: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def advance(self, label: str, size: int) -> None:
        self.done[label] += size
        self.bar.set_postfix_str(self._labels(), refresh=False)
        self.bar.update(size)

    def tick(self) -> None:
        """To be called every few seconds at least, whether or not there is news."""
        now = time.monotonic()
        if self.bar.disable and now - self.said >= EVERY:
            self.said = now
            _log.info("%s", self.line(now - self.began))

    def line(self, seconds: float) -> str:
        """All counts, the rate since the beginning, and the time that is left at that rate."""
        done, total = self.done.total(), self.totals.total()
        rate = done / seconds
        counts = f"{done:,} of {total:,} {self.unit}" if total else f"{done:,} {self.unit}"
        left = f", {tqdm.format_interval((total - done) / rate)} left" if total and rate else ""
        labels = f"; {shown}" if (shown := self._labels()) else ""
        return f"{self.describe}: {counts}, {rate:,.3g}/s{left}{labels}"

    def _labels(self) -> str:
        """Those that are being worked on; all of them where nobody knows how much there is."""
        under_way = [label for label in self.done if label and self.done[label] != self.totals[label]]
        of_all = {label: f"/{total:,}" for label, total in self.totals.items()}
        return ", ".join(f"{label} {self.done[label]:,}{of_all.get(label, '')}" for label in under_way)


@contextmanager
def progress(describe: str, unit: str, totals: Counter[str]) -> Iterator[Progress]:
    """To be advanced in the block.

    Args:
        describe: what is done, such as "translate".
        unit: what is counted, in the plural.
        totals: how much there is, by label; empty if nobody knows.
    """
    total = totals.total() or None
    with tqdm(desc=describe, total=total, unit=f" {unit}", unit_scale=True, disable=None) as bar:
        yield Progress(describe, unit, totals, bar)
