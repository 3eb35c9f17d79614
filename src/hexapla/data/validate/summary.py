"""What validation says about a table: the counts, added up part by part, as JSON and as a page to look at."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from hexapla.config import Validate
from hexapla.data.validate import checks
from hexapla.data.validate.checks import RuleResult
from hexapla.data.validate.contamination import NOT_SEEN, BenchmarkMatch
from hexapla.data.validate.passes import IDENTIFIED_TEXTS, RowGroup
from hexapla.io import cache
from hexapla.io.tables import Ragged
from hexapla.text import normalize
from hexapla.text.languages import find_scripts

_TEMPLATE = "page.html.j2"
_EXAMPLES = 24
"""Failing rows that the page shows of a rule, from as many languages and sources as there are."""


@dataclass
class ValidationTally:
    """Sums over the parts that were added; the keys are pairs of a language and a source."""

    results: dict[tuple[str, str], list[RuleResult]] = field(default_factory=dict)
    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    kept: Counter[tuple[str, str]] = field(default_factory=Counter)
    matches: Counter[str] = field(default_factory=Counter)
    """By benchmark, the rows whose question or passage is equal or near to one of its texts."""
    near: Counter[str] = field(default_factory=Counter)
    """The rows among those that have no text equal to one of the benchmark's."""
    negatives: np.ndarray = field(default_factory=lambda: np.zeros(len(normalize.FAULTS) + 1, np.int64))
    """The negatives of kept rows: first those without a fault, then by `normalize.FAULTS`."""

    def add(
        self,
        groups: Sequence[RowGroup],
        group_of_row: Int32[np.ndarray, " rows"],
        kept: Bool[np.ndarray, " rows"],
    ) -> None:
        """Add a part: its groups, the position of each row's group, and whether the row is kept."""
        counts = np.bincount(group_of_row[kept], minlength=len(groups)).tolist()
        for group, count in zip(groups, counts, strict=True):
            key = (group.lang, group.source)
            self.rows[key] += group.rows
            self.kept[key] += count
            self.results[key] = checks.add_results([*self.results.get(key, ()), *group.results])

    def add_negatives(self, faults: Ragged, kept: Bool[np.ndarray, " rows"]) -> None:
        """Add the faults of a part's negatives; only those of kept rows count."""
        of_kept = faults.values[np.repeat(kept, faults.lengths)].astype(np.int64)
        self.negatives += np.bincount(of_kept, minlength=len(self.negatives))

    def add_matches(self, matches: Iterable[BenchmarkMatch]) -> None:
        """Add all matches of a part."""
        equal: dict[tuple[str, int], bool] = {}
        for match in matches:
            if match.column != "negatives":
                row = (match.benchmark, match.row)
                equal[row] = equal.get(row, False) or match.equal
        self.matches.update(benchmark for benchmark, _ in equal)
        self.near.update(benchmark for (benchmark, _), is_equal in equal.items() if not is_equal)

    @property
    def rejected(self) -> dict[str, int]:
        """The rows that each rule rejects, in the order of the rules."""
        return {one["name"]: one["failed"] for one in checks.add_results(self._all_results())}

    def _all_results(self) -> Iterable[RuleResult]:
        return (one for results in self.results.values() for one in results)


# --- JSON ------------------------------------------------------------------------------------------


def summarize(tally: ValidationTally, validate: Validate, texts: Mapping[str, int]) -> dict[str, Any]:
    """Return the summary that the stage writes; `texts` is the number of texts of each benchmark."""
    rows, kept = tally.rows.total(), tally.kept.total()
    return {
        "rows": rows,
        "kept": kept,
        "rejected": rows - kept,
        "kept_share": round(kept / rows, 4),
        "min_kept": validate.min_kept,
        "languages": _count_by(tally, 0),
        "sources": _count_by(tally, 1),
        "not_checked": _list_unchecked(tally, validate),
        "expectations": [_summarize_rule(tally, name) for name in tally.rejected],
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


def _count_by(tally: ValidationTally, which: int) -> dict[str, dict[str, int]]:
    """Count rows and kept rows by language (0) or source (1)."""
    found: dict[str, dict[str, int]] = {name: {"rows": 0, "kept": 0} for name in _names(tally, which)}
    for key in tally.rows:
        found[key[which]]["rows"] += tally.rows[key]
        found[key[which]]["kept"] += tally.kept[key]
    return found


def _names(tally: ValidationTally, which: int) -> list[str]:
    return sorted({key[which] for key in tally.rows})


def _summarize_rule(tally: ValidationTally, name: str) -> dict[str, Any]:
    found = [(key, one) for key, results in tally.results.items() for one in results if one["name"] == name]
    by_language, by_source = Counter[str](), Counter[str]()
    for (lang, source), one in found:
        by_language[lang] += one["failed"]
        by_source[source] += one["failed"]
    return {
        "name": name,
        "expectation": found[0][1]["expectation"],
        "column": found[0][1]["column"],
        "rejected": by_language.total(),
        "languages": {lang: by_language[lang] for lang in _names(tally, 0)},
        "sources": {source: by_source[source] for source in _names(tally, 1)},
    }


def _list_unchecked(tally: ValidationTally, validate: Validate) -> dict[str, list[str]]:
    """List the languages whose script is not known, and those whose texts were not, or could not be, identified."""
    identified = {f"{text} language" for text in IDENTIFIED_TEXTS[validate.language]}
    seen = {
        lang
        for (lang, _), results in tally.results.items()
        for one in results
        if one["name"] in identified and one["missing"] < one["rows"]
    }
    languages = _names(tally, 0)
    return {
        "script": [lang for lang in languages if not find_scripts(lang)],
        "language": [lang for lang in languages if lang not in seen],
    }


# --- the page --------------------------------------------------------------------------------------


def render_page(summary: Mapping[str, Any], tally: ValidationTally) -> str:
    """Return the summary as one HTML page that needs no other file; users' texts in it are escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    groups = {key: (tally.rows[key], tally.kept[key]) for key in tally.rows}
    examples = {name: _choose_examples(tally, name) for name in tally.rejected}
    return environment.get_template(_TEMPLATE).render(summary=summary, groups=groups, examples=examples)


def _percent(share: float) -> str:
    """Format a share so that neither a few of many nor all but a few look like none or all."""
    shown = f"{share:.1%}"
    if shown == "0.0%" and share > 0:
        return "< 0.1%"
    return "> 99.9%" if shown == "100.0%" and share < 1 else shown


def _choose_examples(tally: ValidationTally, name: str) -> list[dict[str, Any]]:
    """Return some rows that fail a rule, as many of each language and source as there is room for."""
    found = [
        [{**example, "source": source} for example in one["examples"]]
        for (_, source), results in sorted(tally.results.items())
        for one in results
        if one["name"] == name and one["examples"]
    ]
    each = max(1, _EXAMPLES // max(1, len(found)))
    return [example for examples in found for example in examples[:each]][:_EXAMPLES]


def write_page(docs: Path, page: str) -> None:
    """Replace the folder `docs` by one that holds the page as index.html."""
    with cache.atomic_folder(docs) as folder:
        cache.write_text(folder / "index.html", page)
