"""The report's chapter on one benchmark: figures, intervals, tests, centring, languages."""

from collections.abc import Mapping, Sequence

from hexapla.evaluation import comparison
from hexapla.evaluation.comparison import Board, Comparison, Contrast, Judged
from hexapla.evaluation.scoreboard import BIAS, JUDGED, MEASURES, QUALITY, Measure, best, held
from hexapla.reporting.result_tables import (
    Model,
    board,
    by_language,
    deltas,
    intervals,
    p_value,
    plain,
    table,
)

_CENTRED = tuple(
    MEASURES[key] for key in ("map_mono", "map_cross", "map_multi", "rank_distance", "own_language_top10")
)


def results(benchmark: str, models: Sequence[Model], compared: Comparison, figures: str) -> list[str]:
    """Paragraphs and tables; the candidate is the first of `models`, `figures` the pictures' folder."""
    detail = models[0].results[0].benchmarks[benchmark]
    measures, shown, tests = compared
    languages, name = detail["languages"], plain(benchmark)
    parts = [
        f"## Results on {name}",
        f"{detail['questions']:,} questions in {len(languages)} languages "
        f"({', '.join(map(plain, languages))}){_sources(models[0], benchmark)}; "
        f"{detail['candidates']:,} passages to choose from{_settings(models[0])}. "
        + _headline(shown, tests, measures, len(languages)),
    ]
    parts += _boards(shown, tests, measures, len(languages))
    parts += _certainty(shown, tests, measures, [model.judged() for model in models])
    if detail["format"] == "miracl":
        return [*parts, "### By language", *by_language(benchmark, models, JUDGED)]
    parts += _centring(benchmark, models)
    return [*parts, *_languages(benchmark, models, figures)]


def _sources(model: Model, benchmark: str) -> str:
    """Of how many questions they are translations: what intervals and tests count."""
    multi = model.results[0].outcomes[benchmark]["none"].get("multi")
    return f", translations of {len(multi['map'].clusters):,}" if multi else ""


def _settings(model: Model) -> str:
    """How it was judged, for results that say so."""
    how = model.results[0].evaluation
    if "precision" not in how:
        return ""
    return f" (cut to {how['question_tokens']} and {how['passage_tokens']} tokens, {plain(how['precision'])})"


def _headline(
    shown: Board, tests: Sequence[Mapping[str, Contrast]], measures: Sequence[Measure], languages: int
) -> str:
    """Sentences that hold whatever the figures are."""
    spoken = {
        "map_multi": "mAP over the pool of all languages",
        "rank_distance": "rank distance (less is better)",
        "ndcg10": "nDCG@10",
    }
    sentences = []
    for measure in measures:
        mine = shown[0][1][measure.key]
        if measure.key not in spoken or mine.value is None:
            continue
        leaders = best(measure, [{measure.key: f[measure.key].value} for _, f in shown], languages)
        place = "the best" if leaders == {0} else "among the best" if 0 in leaders else "not the best"
        others = "; ".join(
            f"{plain(title)} {measure.show(f[measure.key].value)}{_verdict(test[measure.key])}"
            for (title, f), test in zip(shown[1:], tests, strict=True)
        )
        sentences.append(
            f"The candidate's {spoken[measure.key]} is **{measure.show(mine.value)}**, {place}"
            + (f" ({others})." if others else ".")
        )
    return " ".join(sentences)


def _verdict(contrast: Contrast) -> str:
    if contrast.p is None:
        return ""
    return f", {p_value(contrast.p)}" + ("" if contrast.significant else ", no significant difference")


def _boards(
    shown: Board, tests: Sequence[Mapping[str, Contrast]], measures: Sequence[Measure], languages: int
) -> list[str]:
    marks = (
        "▲ significantly better and ▼ significantly worse than the candidate.[¹](#how-sure-the-figures-are)"
    )
    parts = []
    for title, about, group in (
        ("Finding the answer", "From 0 to 1; higher is better, the best in **bold**.", (*QUALITY, *JUDGED)),
        (
            "Language bias",
            "The ideal with {} languages: {}. Nearest to it in **bold**.",
            BIAS,
        ),
    ):
        columns = [measure for measure in group if measure in measures]
        if not columns:
            continue
        ideals = ", ".join(f"{m.title} {m.show(m.ideal(languages))}" for m in columns)
        parts += [
            f"### {title}",
            f"{about.format(languages, ideals)} {marks if len(shown) > 1 else ''}".rstrip(),
            table(["model", *(m.title for m in columns)], board(shown, tests, columns, languages)),
        ]
    return parts


def _certainty(
    shown: Board,
    tests: Sequence[Mapping[str, Contrast]],
    measures: Sequence[Measure],
    judged: Sequence[Judged],
) -> list[str]:
    seeds = {each.name: len(each.results) for each in judged}
    trained = (
        "Every model was trained with one seed."
        if max(seeds.values()) == 1
        else "Averaged over seeds: "
        + ", ".join(f"{plain(name)} {count}" for name, count in seeds.items())
        + "; ± is their standard deviation."
    )
    parts = [
        "### How sure the figures are",
        f"In brackets the 95 % interval of each figure. {trained}",
        table(["measure", *(plain(title) for title, _ in shown)], intervals(shown, measures)),
    ]
    if tests:
        parts += [
            f"Candidate minus baseline, in **bold** where p is below {comparison.LEVEL}. More is better, but "
            "of rank distance and worst rank less, and the own language's share should be even:",
            table(["measure", *(plain(title) for title, _ in shown[1:])], deltas(tests, measures)),
        ]
    return [*parts, _METHOD]


_METHOD = (
    f"¹ Intervals: percentile bootstrap, {comparison.RESAMPLES:,} resamples. Tests: two-sided paired "
    f"randomisation (Smucker et al. 2007), {comparison.ROUNDS:,} rounds. Both resample *source questions*: "
    "the translations of one question succeed and fail together, so they are drawn and swapped together. "
    "The p-values of a table are Holm-corrected over all of its cells. Neither sees what another "
    "training seed would have given; several seeds, when there are any, are averaged question by question."
)


# --- centring ------------------------------------------------------------------------------------


def _centring(benchmark: str, models: Sequence[Model]) -> list[str]:
    """Every model without and with its languages' means taken away, and what that says of training."""
    kinds = [how for how in models[0].results[0].benchmarks[benchmark]["centring"] if how != "none"]
    if not kinds:
        return []
    rows = []
    for model in models:
        for how in ("none", *kinds):
            judged = model.judged(how)
            cells = (m.show(judged.outcome(benchmark, m).figure()) for m in _CENTRED)
            rows.append([plain(model.title), _KINDS[how], *cells])
    return [
        "### The control that costs nothing",
        "*Centred*: from every vector the mean vector of its language is taken away, questions and passages "
        "apart, and what is left made a unit vector again. It needs no training, so training has to beat it "
        "(p corrected over the two measures of each comparison). "
        + " ".join(_against(benchmark, models, how) for how in kinds),
        table(["model", "vectors", *(m.title for m in _CENTRED)], rows, left=2),
    ]


_KINDS = {"none": "as they are", "language": "centred, pool's means", "trained": "centred, training's means"}


def _against(benchmark: str, models: Sequence[Model], how: str) -> str:
    """Says plainly whether the candidate is better than the untuned encoder, centred."""
    untuned = next((model for model in models if model.results[0].training.get("sampler") == "untuned"), None)
    if untuned is None or untuned is models[0]:
        return ""
    measures = held(
        [MEASURES["map_multi"], MEASURES["rank_distance"]], untuned.results[0].scores[benchmark][how]
    )
    mine, other = models[0].judged(), untuned.judged(how)
    (test,) = comparison.contrasts(benchmark, mine, [other], measures)
    sentences = []
    for measure in measures:
        a, b = mine.outcome(benchmark, measure).figure(), other.outcome(benchmark, measure).figure()
        contrast = test[measure.key]
        if a is None or b is None or contrast.p is None:
            continue
        better = (a > b) == (measure.better == "higher")
        if contrast.significant:
            verdict = "better than" if better else "**worse than**"
        else:
            verdict = "**not significantly different from**"
        sentences.append(
            f"In {measure.title} the trained candidate ({measure.show(a)}) is {verdict} the untuned encoder "
            f"{_KINDS[how]} ({measure.show(b)}; {p_value(contrast.p)})."
        )
    return " ".join(sentences)


# --- languages -----------------------------------------------------------------------------------


def _languages(benchmark: str, models: Sequence[Model], figures: str) -> list[str]:
    name = plain(benchmark)
    return [
        "### Every pair of languages",
        "A cell is the mAP of questions in the row's language among passages in the column's; on the "
        "diagonal the two are the same.",
        f"![mAP by language pair on {name}]({figures}/{benchmark}-language-pairs.png)",
        "The candidate in two more ways: how often the right passage comes first (R@1), and what share of "
        "the first ten passages of the pool of all languages each language has.",
        f"![R@1 and top-10 shares on {name}]({figures}/{benchmark}-matrices.png)",
        "### By the question's language",
        f"![Rank distance by language on {name}]({figures}/{benchmark}-rank-distance.png)",
        *by_language(benchmark, models, [MEASURES[k] for k in ("map_mono", "map_multi", "rank_distance")]),
    ]
