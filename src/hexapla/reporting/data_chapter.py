"""The report's chapter on the data: where it came from, what translation kept of it, what was rejected."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hexapla.reporting.result_tables import code, plain, table

QUANTILES = {
    "length_ratio": "length ratio",
    "copy_share": "copied",
    "numbers_kept": "numbers kept",
    "cosine": "cosine",
}
"""Measures of a translated row, as `translate` sums them up by quantiles, and their titles."""

_SHARES = {
    "answer_kept": "answer kept",
    "question_language": "question identified",
    "passage_language": "passage identified",
}
_TALLIES = {
    "read": "read",
    "other_rows": "other rows",
    "other_language": "other languages",
    "without_english": "without English",
    "skipped": "no answer",
    "unusable": "unusable",
    "short_or_long": "too short or long",
    "not_sampled": "not sampled",
    "over_limit": "over the limit",
    "duplicates": "duplicates",
    "near_duplicates": "near duplicates",
    "kept": "collected",
}
"""What became of a source's rows, as `collect` counts them; those that are nowhere above 0 are not shown."""


class Data(NamedTuple):
    """Summaries of the stages before training."""

    collect: Mapping[str, Any]
    translate: Mapping[str, Any]
    validation: Mapping[str, Any]


def data(found: Data, figures: str) -> list[str]:
    """Paragraphs and tables; what an older summary does not have is left out.

    Args:
        found: the summaries.
        figures: folder of the pictures, relative to the report.
    """
    return [
        "## Data and its validation",
        _told(found),
        _by_language(found),
        *_by_source(found),
        *_quality(found.translate, figures),
        *_rejected(found.validation),
        *_contamination(found.validation),
    ]


def _told(found: Data) -> str:
    sources = ", ".join(f"{plain(name)} ({n['kept']:,})" for name, n in found.collect["sources"].items())
    near = found.collect.get("near_duplicates")
    engine, judged = found.translate["engine"], found.validation
    engines = engine.values() if isinstance(engine, Mapping) else [engine]
    return (
        f"{found.collect['pairs']:,} English pairs from {sources}; {found.collect['duplicates']:,} exact "
        f"{'' if near is None else f'and {near:,} near '}duplicates left out. Translated by "
        f"{', '.join(f'`{code(name)}`' for name in dict.fromkeys(engines))}. Of {judged['rows']:,} rows "
        f"in all languages {judged['kept']:,} met every expectation ({judged['kept_share']:.1%}; the stage "
        f"fails below {judged['min_kept']:.0%})."
    )


def _by_language(found: Data) -> str:
    """A row a language; a tally stands only where some language has it."""
    titles = {"missing": "not translated", "answers_lost": "answers lost", "negatives_lost": "negatives lost"}
    translated = found.translate["languages"]
    tallies = [name for name in titles if any(name in counts for counts in translated.values())]
    rows = [
        [
            plain(lang),
            counts["rows"],
            *(translated.get(lang, {}).get(name, "–") for name in tallies),
            counts["rows"] - counts["kept"],
            counts["kept"],
        ]
        for lang, counts in found.validation["languages"].items()
    ]
    return table(["language", "rows", *(titles[name] for name in tallies), "rejected", "kept"], rows)


def _by_source(found: Data) -> list[str]:
    """From what was read to what was kept in all languages; nothing when validation did not tell."""
    judged = found.validation.get("sources")
    if not judged:
        return []
    collected = found.collect["sources"]
    tallies = [name for name in _TALLIES if any(counts.get(name) for counts in collected.values())]
    rows = [
        [
            plain(name),
            *(collected.get(name, {}).get(tally, "–") for tally in tallies),
            counts["rows"],
            counts["rows"] - counts["kept"],
            counts["kept"],
        ]
        for name, counts in judged.items()
    ]
    header = ["source", *(_TALLIES[tally] for tally in tallies), "rows", "rejected", "kept"]
    return ["The same by source; *rows* are those in all languages:", table(header, rows)]


# --- what translation kept -----------------------------------------------------------------------


def _quality(translate: Mapping[str, Any], figures: str) -> list[str]:
    """Medians and shares by language; nothing when `translate` did not measure them."""
    quality = translate.get("quality")
    if not quality:
        return []
    measures = [name for name in QUANTILES if _told_by(quality, name)]
    shares = [name for name in _SHARES if _told_by(quality, name)]
    rows = [
        [
            plain(lang),
            *(_spread(told.get(name)) for name in measures),
            *(_share(told.get(name)) for name in shares),
        ]
        for lang, told in quality.items()
    ]
    header = ["language", *(QUANTILES[name] for name in measures), *(_SHARES[name] for name in shares)]
    return [
        "### What translation kept",
        "Before validation, of each language's rows the median and in brackets where nine tenths of the rows "
        "lie (5–95 %). *Length ratio*: characters of the passage for one of the English; *copied*: share of "
        "its letters in words that the English has too; *numbers kept*: share of the English numbers that "
        "are still there; *cosine*: of the passage's vector and the English one's, by the untuned encoder. "
        "The shares: rows that still have the answer; questions and passages that the identifier takes for "
        "their language.",
        table(header, rows),
        *([f"![Quality of the translations by language]({figures}/quality.png)"] if measures else []),
    ]


def _told_by(quality: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    return any(told.get(name, {}).get("counted") for told in quality.values())


def _spread(told: Mapping[str, Any] | None) -> str:
    if not told or not told.get("counted"):
        return "–"
    low, _, median, _, high = told["quantiles"]
    return f"{median:.2f} ({low:.2f}–{high:.2f})"


def _share(told: Mapping[str, Any] | None) -> str:
    return f"{told['share']:.1%}" if told and told.get("counted") else "–"


def boxes(
    translate: Mapping[str, Any],
) -> tuple[list[str], dict[str, list[Sequence[float] | None]]]:
    """What the picture of the quality shows: languages, and by measure's title their five quantiles."""
    quality = translate.get("quality") or {}
    languages = [lang for lang in quality if any(quality[lang].get(n, {}).get("counted") for n in QUANTILES)]
    panels: dict[str, list[Sequence[float] | None]] = {}
    for name, title in QUANTILES.items():
        told = [quality[lang].get(name, {}) for lang in languages]
        if any(each.get("counted") for each in told):
            panels[title] = [each["quantiles"] if each.get("counted") else None for each in told]
    return languages, panels


# --- what was rejected ---------------------------------------------------------------------------


def _rejected(validation: Mapping[str, Any]) -> list[str]:
    checks = validation["expectations"]
    held = ", ".join(plain(check["name"]) for check in checks if not check["rejected"])
    broken = [check for check in checks if check["rejected"]]
    sources = any(check.get("sources") for check in broken)
    rows = [
        [
            plain(check["name"]),
            _tally(check["languages"].items()),
            *([_tally(check.get("sources", {}).items())] if sources else []),
            check["rejected"],
        ]
        for check in broken
    ]
    header = ["expectation", "languages", *(["sources"] if sources else []), "rows rejected"]
    return [
        "### What was rejected",
        f"Met by every row: {held or 'no expectation'}.",
        *([table(header, rows, left=len(header) - 1)] if rows else []),
        *_negatives(validation.get("negatives")),
        "Every row that was rejected is in `data/validated/quarantine.parquet` with its reasons, and "
        "`hexapla inspect` shows it beside its English; "
        "[Great Expectations' Data Docs](validation/index.html) show the same check by check.",
    ]


def _tally(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{plain(name)} {count:,}" for name, count in counts if count)


def _negatives(told: Mapping[str, Any] | None) -> list[str]:
    if not told or not (dropped := _tally(told["dropped"].items())):
        return []
    return [f"Negatives of the rows that were kept: {told['kept']:,}; dropped: {dropped}."]


def _contamination(validation: Mapping[str, Any]) -> list[str]:
    """What of the benchmarks stood in the data, and what nobody could see."""
    seen, unseen = validation["benchmarks"], validation.get("not_seen")
    near = any("near" in counts for counts in seen.values())
    rows = [
        [
            plain(name),
            counts["texts"],
            counts["matches"],
            *([counts.get("near", "–")] if near else []),
        ]
        for name, counts in seen.items()
    ]
    how = "normalised exact match and near match (shared shingles)" if near else "normalised exact match"
    where = " (`reports/contamination.csv` lists it, with its match)" if near else ""
    return [
        "### Texts of the benchmarks in the data",
        f"No text of a benchmark is in what was trained on, as far as {how} of questions and passages can "
        f"tell. What of them stood in the data before validation{where}:",
        table(["benchmark", "texts", "found", *(["near matches"] if near else [])], rows),
        *([f"Not to be seen from here: {' '.join(map(plain, unseen))}"] if unseen else []),
    ]
