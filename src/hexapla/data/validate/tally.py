"""What validation tells of a table, added up part by part: rows kept, and what each expectation rejected."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hexapla.config_data import Validate
from hexapla.data.validate import checks
from hexapla.data.validate.contamination import NOT_SEEN, Hit
from hexapla.data.validate.verdicts import IDENTIFIED, Group
from hexapla.io.tables import Ragged
from hexapla.text import normalize
from hexapla.text.languages import find_scripts


@dataclass
class Tally:
    """Sums over the parts that were added; a pair of texts is a language and a source."""

    outcomes: dict[tuple[str, str], list[checks.Outcome]] = field(default_factory=dict)
    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    kept: Counter[tuple[str, str]] = field(default_factory=Counter)
    matches: Counter[str] = field(default_factory=Counter)
    """Rows by the benchmark that holds their question or passage."""
    near: Counter[str] = field(default_factory=Counter)
    """Those of them of which no text is equal to one of the benchmark's."""
    negatives: np.ndarray = field(default_factory=lambda: np.zeros(len(normalize.FAULTS) + 1, np.int64))
    """Of the kept rows, by what `normalize.find_fault` says of them."""

    def add(self, groups: Sequence[Group], places: np.ndarray, kept: np.ndarray) -> None:
        """A part: its groups, of each row the position of its group, and whether it is kept."""
        counts = np.bincount(places[kept], minlength=len(groups)).tolist()
        for group, count in zip(groups, counts, strict=True):
            key = (group.lang, group.source)
            self.rows[key] += group.rows
            self.kept[key] += count
            self.outcomes[key] = checks.merged([*self.outcomes.get(key, ()), *group.outcomes])

    def add_negatives(self, faults: Ragged, kept: np.ndarray) -> None:
        of_kept = faults.values[np.repeat(kept, faults.lengths)].astype(np.int64)
        self.negatives += np.bincount(of_kept, minlength=len(self.negatives))

    def add_hits(self, hits: Iterable[Hit]) -> None:
        """All of a part's."""
        equal: dict[tuple[str, int], bool] = {}
        for hit in hits:
            if hit.column != "negatives":
                equal[hit.benchmark, hit.row] = equal.get((hit.benchmark, hit.row), False) or hit.equal
        self.matches.update(benchmark for benchmark, _ in equal)
        self.near.update(benchmark for (benchmark, _), so in equal.items() if not so)

    @property
    def rejected(self) -> dict[str, int]:
        """Rows by expectation, in the expectations' order."""
        found: dict[str, int] = {}
        for outcomes in self.outcomes.values():
            for one in outcomes:
                found[one["name"]] = found.get(one["name"], 0) + one["failed"]
        return found

    @property
    def pages(self) -> dict[str, list[checks.Outcome]]:
        """For `checks.write_pages`: one a language and source."""
        return {" ".join(filter(None, key)) or "none": self.outcomes[key] for key in sorted(self.outcomes)}


def summary(tally: Tally, validate: Validate, texts: Mapping[str, int]) -> dict[str, Any]:
    """As `validate` writes it; `texts` counts each benchmark's."""
    rows, kept = tally.rows.total(), tally.kept.total()
    return {
        "rows": rows,
        "kept": kept,
        "rejected": rows - kept,
        "kept_share": round(kept / rows, 4),
        "min_kept": validate.min_kept,
        "languages": _by(tally, 0),
        "sources": _by(tally, 1),
        "not_checked": _not_checked(tally, validate),
        "expectations": [_expectation(tally, name) for name in tally.rejected],
        "benchmarks": {
            name: {"texts": count, "matches": tally.matches[name], "near": tally.near[name]}
            for name, count in texts.items()
        },
        "max_overlap": validate.max_overlap,
        "not_seen": list(NOT_SEEN),
        "negatives": {
            "kept": int(tally.negatives[0]),
            "dropped": dict(zip(normalize.FAULTS, tally.negatives[1:].tolist(), strict=True)),
        },
    }


def _by(tally: Tally, which: int) -> dict[str, dict[str, int]]:
    """Rows and kept rows by language (0) or source (1)."""
    found: dict[str, dict[str, int]] = {name: {"rows": 0, "kept": 0} for name in _names(tally, which)}
    for key in tally.rows:
        found[key[which]]["rows"] += tally.rows[key]
        found[key[which]]["kept"] += tally.kept[key]
    return found


def _names(tally: Tally, which: int) -> list[str]:
    return sorted({key[which] for key in tally.rows})


def _expectation(tally: Tally, name: str) -> dict[str, Any]:
    counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    told: checks.Outcome = {}
    for key, outcomes in tally.outcomes.items():
        for one in outcomes:
            if one["name"] == name:
                told = told or one
                for which in range(2):
                    counts[which][key[which]] += one["failed"]
    return {
        "name": name,
        "expectation": told["type"],
        "column": told["arguments"]["column"],
        "rejected": counts[0].total(),
        "languages": {lang: counts[0][lang] for lang in _names(tally, 0)},
        "sources": {source: counts[1][source] for source in _names(tally, 1)},
    }


def _not_checked(tally: Tally, validate: Validate) -> dict[str, list[str]]:
    """The languages whose script, and whose language, could not be told, or should not be."""
    identified = {f"{text} language" for text in IDENTIFIED[validate.language]}
    seen = {
        lang
        for (lang, _), outcomes in tally.outcomes.items()
        for one in outcomes
        if one["name"] in identified and one["missing"] < one["rows"]
    }
    languages = _names(tally, 0)
    return {
        "script": [lang for lang in languages if not find_scripts(lang)],
        "language": [lang for lang in languages if lang not in seen],
    }
