"""The report: what the stages wrote, as Markdown.

`report.md.j2` holds the text. This module works out what the text depends on, and escapes everything that
comes from data or parameters.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from hexapla.evaluation import statistics
from hexapla.evaluation.metrics import BIAS, JUDGED, METRICS, QUALITY, choose_known, find_best
from hexapla.evaluation.statistics import Comparison
from hexapla.reporting.result_tables import (
    Markdown,
    Model,
    board,
    by_language,
    code,
    deltas,
    escape,
    intervals,
    p_value,
    table,
)

# arXiv 2408.10536, tables 2 to 4: batches, mAP on XQuAD-R (mono, cross, multi), MLQA-R, rank distances.
_PAPER = """
XLM-R monolingual  | .7918 .6737 .5479 | .6475 .5843 .4731 | 410 288
XLM-R crosslingual | .7554 .6997 .5934 | .6256 .6200 .5076 | 295 227
XLM-R hybrid       | .7977 .7053 .5927 | .6481 .6234 .5121 | 287 227
LaBSE monolingual  | .8083 .7519 .6517 | .6807 .6561 .5504 | 262 225
LaBSE crosslingual | .8008 .7618 .6791 | .6710 .6767 .5755 | 225 198
LaBSE hybrid       | .8167 .7672 .6817 | .6864 .6811 .5785 | 221 195
"""

QUANTILES = {
    "length_ratio": "length ratio",
    "copy_share": "copied",
    "numbers_kept": "numbers kept",
    "cosine": "cosine",
}
"""Titles of the quality measures that `translate` summarizes by five quantiles."""

_SHARES = {
    "answer_kept": "answer kept",
    "question_language": "question identified",
    "passage_language": "passage identified",
}
_COLLECTED = {
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
"""Titles of the counts that `collect` keeps for each source; a count that is 0 everywhere is left out."""

_CENTERED = ("map_mono", "map_cross", "map_multi", "rank_distance", "own_language_top10")
_VECTORS = {
    "none": "as it is",
    "language": "centered by the pool's means",
    "trained": "centered by the training data's means",
}
_HEADLINES = {
    "map_multi": "mAP over the pool of all languages",
    "rank_distance": "rank distance (lower is better)",
    "ndcg10": "nDCG@10",
}
_VERDICTS = {
    "better": "better than",
    "worse": Markdown("**worse than**"),
    "same": Markdown("**not significantly different from**"),
}


class StageSummaries(NamedTuple):
    """The summaries that the stages before training wrote, as JSON objects."""

    collect: Mapping[str, Any]
    translate: Mapping[str, Any]
    validation: Mapping[str, Any]


def markdown(
    data: StageSummaries, models: Sequence[Model], compared: Mapping[str, Comparison], figures: str
) -> str:
    """The whole report.

    Args:
        data: summaries of the data stages; what an older summary lacks is left out.
        models: the candidate first, then its baselines; all were evaluated on the same benchmarks.
        compared: figures, intervals and tests of the models, by benchmark.
        figures: folder of the figures, relative to the report.
    """
    template = _environment().get_template("report.md.j2")
    text = template.render(
        models=models,
        benchmarks=[_benchmark(name, models, compared[name]) for name in models[0].results[0].scores],
        statistics={
            "level": statistics.LEVEL,
            "resamples": statistics.RESAMPLES,
            "rounds": statistics.ROUNDS,
        },
        verdicts=_VERDICTS,
        measures=_measures(models),
        training=models[0].training,
        runs=[_run(model) for model in models],
        left_out=[
            {"title": model.title, "languages": model.training["left_out_languages"]}
            for model in models
            if model.training.get("left_out_languages")
        ],
        curves=any(model.training["steps"] for model in models),
        data=data,
        engines=_engines(data.translate),
        languages=_languages(data),
        sources=_sources(data),
        quality=_quality(data.translate),
        rejected=_rejected(data.validation),
        negatives=_negatives(data.validation),
        contamination=_contamination(data.validation),
        paper=_paper(),
        figures=Markdown(figures),
    )
    lines = (line.rstrip() for line in text.splitlines())
    return "\n".join(_without_gaps(lines)) + "\n"


def _environment() -> jinja2.Environment:
    """Jinja whose every printed value is escaped for Markdown, unless it is `Markdown` already."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - the result is Markdown, escaped by `finalize`; HTML is made from it later
    )
    environment.globals["table"] = table
    environment.filters |= {
        "code": lambda text: Markdown(code(text)),
        "file": Markdown,
        "markdown_join": lambda parts, mark: Markdown(mark.join(parts)),
        "as_code": lambda name: Markdown(f"`{code(name)}`"),
        "as_source": lambda item: escape(f"{item[0]} ({item[1]['kept']:,})"),
        "as_seeds": lambda item: escape(f"{item[0]} {item[1]}"),
    }
    return environment


def _without_gaps(lines: Iterable[str]) -> Iterable[str]:
    """At most one empty line in a row, and none at the beginning."""
    last = ""
    for line in lines:
        if line or last:
            yield line
        last = line


# --- one benchmark -----------------------------------------------------------------------------


def _benchmark(name: str, models: Sequence[Model], compared: Comparison) -> dict[str, Any]:
    """What the section on one benchmark depends on."""
    first, detail = models[0].results[0], models[0].results[0].benchmarks[name]
    measures, shown, tests = compared
    languages = len(detail["languages"])
    judged = detail["format"] == "miracl"
    multi = first.query_scores[name]["none"].get("multi")
    by = JUDGED if judged else [METRICS[key] for key in ("map_mono", "map_multi", "rank_distance")]
    return {
        "name": name,
        "detail": detail,
        "judged": judged,
        "clusters": len(multi["map"].clusters) if multi else 0,
        "lengths": _lengths(models[0]),
        "headlines": _headlines(compared, languages),
        "boards": _boards(compared, languages),
        "titles": [title for title, _ in shown],
        "seeds": [(model.title, len(model.results)) for model in models],
        "intervals": intervals(shown, measures),
        "differences": deltas(tests, measures),
        "centered": None if judged else _centered(name, models),
        "by_language": by_language(name, models, by),
    }


def _lengths(model: Model) -> dict[str, Any] | None:
    card = model.results[0].evaluation
    if "precision" not in card:
        return None
    return {
        "query": card["query_tokens"],
        "passage": card["passage_tokens"],
        "precision": card["precision"],
    }


def _headlines(compared: Comparison, languages: int) -> list[dict[str, Any]]:
    """The candidate's place in each headline measure, and the others with their p-values."""
    measures, shown, tests = compared
    lines = []
    for measure in measures:
        key, mine = measure.key, shown[0][1][measure.key].value
        if key not in _HEADLINES or mine is None:
            continue
        leaders = find_best(measure, [{key: figures[key].value} for _, figures in shown], languages)
        others = []
        for (title, figures), test in zip(shown[1:], tests, strict=True):
            p, text = test[key].p, escape(f"{title} {measure.show(figures[key].value)}")
            if p is not None:
                text = Markdown(f"{text}, {p_value(p)}")
            if p is not None and not test[key].significant:
                text = Markdown(f"{text}, no significant difference")
            others.append(text)
        rank = "the best" if leaders == {0} else "among the best" if 0 in leaders else "not the best"
        lines.append(
            {"measure": _HEADLINES[key], "value": measure.show(mine), "rank": rank, "others": others}
        )
    return lines


def _boards(compared: Comparison, languages: int) -> list[dict[str, Any]]:
    measures, shown, tests = compared
    boards = []
    for title, group in (("Finding the answer", (*QUALITY, *JUDGED)), ("Language bias", BIAS)):
        columns = [measure for measure in group if measure in measures]
        if not columns:
            continue
        ideals = ", ".join(f"{each.title} {each.show(each.ideal(languages))}" for each in columns)
        about = (
            f"An unbiased retriever that makes no mistake would reach, with {languages} languages: {ideals}. "
            "The nearest is in **bold**."
            if group is BIAS
            else "All figures lie between 0 and 1, and higher is better. The best is in **bold**."
        )
        rows = board(shown, tests, columns, languages)
        header = ["model", *(each.title for each in columns)]
        boards.append({"title": title, "about": Markdown(about), "header": header, "rows": rows})
    return boards


def _centered(name: str, models: Sequence[Model]) -> dict[str, Any] | None:
    """Every model with and without the means of its languages, and the candidate against the untuned one."""
    kinds = [how for how in models[0].results[0].benchmarks[name]["centering"] if how != "none"]
    if not kinds:
        return None
    measures = [METRICS[key] for key in _CENTERED]
    rows = []
    for model in models:
        for how in ("none", *kinds):
            judged = model.judged(how)
            cells = (each.show(judged.query_scores(name, each).average()) for each in measures)
            rows.append([model.title, _VECTORS[how], *cells])
    return {
        "header": ["model", "embeddings", *(each.title for each in measures)],
        "rows": rows,
        "verdicts": [line for how in kinds for line in _against_untuned(name, models, how)],
    }


def _against_untuned(name: str, models: Sequence[Model], how: str) -> list[dict[str, Any]]:
    """Whether the candidate is better than the untuned encoder with centered embeddings."""
    untuned = next((model for model in models if model.results[0].training.get("sampler") == "untuned"), None)
    if untuned is None or untuned is models[0]:
        return []
    headlines = [METRICS["map_multi"], METRICS["rank_distance"]]
    measures = choose_known(headlines, untuned.results[0].scores[name][how])
    mine, other = models[0].judged(), untuned.judged(how)
    (test,) = statistics.compute_contrasts(name, mine, [other], measures)
    lines = []
    for measure in measures:
        a, b = mine.query_scores(name, measure).average(), other.query_scores(name, measure).average()
        contrast = test[measure.key]
        if a is None or b is None or contrast.p is None:
            continue
        better = (a > b) == (measure.better == "higher")
        lines.append(
            {
                "measure": _HEADLINES[measure.key],
                "mine": measure.show(a),
                "verdict": ("better" if better else "worse") if contrast.significant else "same",
                "how": _VECTORS[how],
                "other": measure.show(b),
                "p": p_value(contrast.p),
            }
        )
    return lines


def _measures(models: Sequence[Model]) -> list[list[str]]:
    better = {"higher": "higher", "lower": "lower", "even": "nearest to 1 / number of languages"}
    known = {key for each in models[0].results[0].scores.values() for key in each["none"]}
    return [[m.title, m.meaning, better[m.better]] for m in METRICS.values() if m.key in known]


def _run(model: Model) -> list[Any]:
    """A row on how a model was trained."""
    run = model.training
    batches = ", ".join(f"{count} {kind}" for kind, count in run["batches"].items() if count) or "–"
    steps = [run["steps"], str(run["epochs"])] if run["steps"] else ["–", "–"]
    trained = f"{run['trained_parameters'] / 1e6:,.1f} of {run['parameters'] / 1e6:,.1f} million"
    losses = "–" if run["first_loss"] is None else f"{run['first_loss']:.2f} → {run['last_loss']:.2f}"
    return [model.title, *steps, batches, trained, losses]


# --- the data ------------------------------------------------------------------------------------


def _engines(translate: Mapping[str, Any]) -> list[str]:
    engine = translate["engine"]
    return list(dict.fromkeys(engine.values())) if isinstance(engine, Mapping) else [engine]


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    return {"header": list(header), "rows": rows}


def _languages(data: StageSummaries) -> dict[str, Any]:
    """A row for each language; a count gets a column where some language has it."""
    titles = {"missing": "not translated", "answers_lost": "answers lost", "negatives_lost": "negatives lost"}
    translated = data.translate["languages"]
    counts = [name for name in titles if any(name in each for each in translated.values())]
    rows = [
        [
            lang,
            each["rows"],
            *(translated.get(lang, {}).get(name, "–") for name in counts),
            each["rows"] - each["kept"],
            each["kept"],
        ]
        for lang, each in data.validation["languages"].items()
    ]
    return _table(["language", "rows", *(titles[name] for name in counts), "rejected", "kept"], rows)


def _sources(data: StageSummaries) -> dict[str, Any] | None:
    """A row for each source, from what was read to what was kept in all languages."""
    validated = data.validation.get("sources")
    if not validated:
        return None
    collected = data.collect["sources"]
    counts = [name for name in _COLLECTED if any(each.get(name) for each in collected.values())]
    rows = [
        [
            name,
            *(collected.get(name, {}).get(count, "–") for count in counts),
            each["rows"],
            each["rows"] - each["kept"],
            each["kept"],
        ]
        for name, each in validated.items()
    ]
    return _table(["source", *(_COLLECTED[name] for name in counts), "rows", "rejected", "kept"], rows)


def _quality(translate: Mapping[str, Any]) -> dict[str, Any] | None:
    """Medians, ranges and shares by language, of the measures that some row has."""
    quality = translate.get("quality")
    if not quality:
        return None
    measures = [name for name in QUANTILES if _is_counted(quality, name)]
    shares = [name for name in _SHARES if _is_counted(quality, name)]
    rows = [
        [lang, *(_spread(each.get(name)) for name in measures), *(_share(each.get(name)) for name in shares)]
        for lang, each in quality.items()
    ]
    header = ["language", *(QUANTILES[name] for name in measures), *(_SHARES[name] for name in shares)]
    return _table(header, rows) | {"drawn": bool(measures)}


def _is_counted(quality: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    return any(each.get(name, {}).get("counted") for each in quality.values())


def _spread(summary: Mapping[str, Any] | None) -> str:
    if not summary or not summary.get("counted"):
        return "–"
    low, _, median, _, high = summary["quantiles"]
    return f"{median:.2f} ({low:.2f}–{high:.2f})"


def _share(summary: Mapping[str, Any] | None) -> str:
    return f"{summary['share']:.1%}" if summary and summary.get("counted") else "–"


def quality_quantiles(
    translate: Mapping[str, Any],
) -> tuple[list[str], dict[str, list[Sequence[float] | None]]]:
    """What the figure of translation quality shows: languages, and five quantiles for each by measure."""
    quality = translate.get("quality") or {}
    languages = [lang for lang in quality if any(quality[lang].get(n, {}).get("counted") for n in QUANTILES)]
    panels: dict[str, list[Sequence[float] | None]] = {}
    for name, title in QUANTILES.items():
        summaries = [quality[lang].get(name, {}) for lang in languages]
        if any(each.get("counted") for each in summaries):
            panels[title] = [each["quantiles"] if each.get("counted") else None for each in summaries]
    return languages, panels


def _rejected(validation: Mapping[str, Any]) -> dict[str, Any]:
    checks = validation["expectations"]
    broken = [check for check in checks if check["rejected"]]
    sources = any(check.get("sources") for check in broken)
    rows = [
        [
            check["name"],
            _counts(check["languages"].items()),
            *([_counts(check.get("sources", {}).items())] if sources else []),
            check["rejected"],
        ]
        for check in broken
    ]
    header = ["expectation", "languages", *(["sources"] if sources else []), "rows rejected"]
    return _table(header, rows) | {"met": [check["name"] for check in checks if not check["rejected"]]}


def _counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts if count)


def _negatives(validation: Mapping[str, Any]) -> dict[str, Any] | None:
    negatives = validation.get("negatives")
    if not negatives or not (dropped := _counts(negatives["dropped"].items())):
        return None
    return {"kept": negatives["kept"], "dropped": dropped}


def _contamination(validation: Mapping[str, Any]) -> dict[str, Any]:
    seen = validation["benchmarks"]
    near = any("near" in counts for counts in seen.values())
    rows = [
        [name, counts["texts"], counts["matches"], *([counts.get("near", "–")] if near else [])]
        for name, counts in seen.items()
    ]
    how = "normalized exact match and near match (shared shingles)" if near else "normalized exact match"
    header = ["benchmark", "texts", "found", *(["near matches"] if near else [])]
    return _table(header, rows) | {"how": how, "near": near}


def _paper() -> dict[str, Any]:
    rows = []
    for line in _PAPER.strip().splitlines():
        name, *groups = (cell.strip() for cell in line.split("|"))
        rows.append([name, *(cell for group in groups for cell in group.split())])
    settings = [f"{name} {each}" for name in ("XQuAD-R", "MLQA-R") for each in ("mono", "cross", "multi")]
    return _table(["encoder, batches", *settings, "rank distance XQuAD-R", "MLQA-R"], rows)
