"""What models scored, as rows of cells: Markdown for the report, plain text for the terminal."""

import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hexapla.evaluation.metrics import Metric, find_best
from hexapla.evaluation.results import Result
from hexapla.evaluation.statistics import Board, Contrast, Estimate, EvaluatedModel
from hexapla.reporting.terminal import render_table


class Model(NamedTuple):
    """A model and what its stages wrote of it."""

    name: str
    results: Sequence[Result]
    """One for each seed, its own first."""
    training: Mapping[str, Any] = {}
    """The training's summary; empty for a model that came from elsewhere."""

    @property
    def title(self) -> str:
        """`e5-small-monolingual-13`; for a model whose name does not say how, `candidate (hybrid, α 0.5)`."""
        card = self.results[0].training
        if "sampler" not in card:
            return self.name
        how = str(card["sampler"])
        if card.get("alpha") is not None:
            how += f", α {card['alpha']:g}" + (" by example" if card.get("mixing") == "example" else "")
        if card.get("languages_per_id") is not None:
            how += f", {card['languages_per_id']} languages"
        return self.name if how in self.name.split("-") else f"{self.name} ({how})"

    def judged(self, centering: str = "none") -> EvaluatedModel:
        return EvaluatedModel(self.title, self.results, centering)

    def detail(self, benchmark: str, centering: str = "none") -> Mapping[str, Any]:
        """Figures by language and pair, of the model's own seed."""
        part: Mapping[str, Any] = self.results[0].benchmarks[benchmark]["centering"][centering]
        return part


# --- Markdown ----------------------------------------------------------------------------------

_SPECIAL = str.maketrans({mark: f"\\{mark}" for mark in string.punctuation if mark in "\\`*_{}[]<>#|&~$"})


class Markdown(str):
    """Text that is Markdown already, so that `escape` leaves it as it is."""

    __slots__ = ()


def escape(value: Any) -> Markdown:
    """Any value as Markdown text in which nothing from data or parameters is taken for markup."""
    if isinstance(value, Markdown):
        return value
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return Markdown(" ".join(text.split()).translate(_SPECIAL))


def code(text: str) -> str:
    """The inside of a Markdown code span, in which nothing can end it."""
    return " ".join(str(text).split()).replace("`", "'").replace("|", "/")


def table(header: Sequence[Any], rows: Sequence[Sequence[Any]], left: int = 1) -> Markdown:
    """A Markdown table; the first `left` columns are aligned to the left, the others to the right."""
    lines = [[escape(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    pad = [str.ljust if i < left else str.rjust for i in range(len(header))]
    texts = [" | ".join(p(c, w) for p, c, w in zip(pad, line, widths, strict=True)) for line in lines]
    rule = "|".join(f":{'-' * (w + 1)}" if i < left else f"{'-' * (w + 1)}:" for i, w in enumerate(widths))
    return Markdown("\n".join([f"| {texts[0]} |", f"|{rule}|", *(f"| {text} |" for text in texts[1:])]))


# --- rows ----------------------------------------------------------------------------------------

BETTER, WORSE = "▲", "▼"
"""Marks of a figure that is significantly better or worse than the candidate's."""


def board(
    models: Board,
    tests: Sequence[Mapping[str, Contrast]],
    measures: Sequence[Metric],
    languages: int,
    mark: str = "**{}**",
) -> list[list[str]]:
    """A row for each model and a column for each metric.

    Args:
        models: the candidate first.
        tests: for each other model, the candidate's contrasts with it.
        measures: the columns.
        languages: how many languages the benchmark has, which decides what an even share is.
        mark: a format for the best figures.
    """
    rows = [[title] for title, _ in models]
    for measure in measures:
        leaders = find_best(measure, [{measure.key: f[measure.key].value} for _, f in models], languages)
        for position, (row, (_, figures)) in enumerate(zip(rows, models, strict=True)):
            text = measure.show(figures[measure.key].value)
            text = mark.format(text) if position in leaders else text
            sign = _sign(models, tests, position, measure, languages)
            row.append(Markdown(f"{text} {sign}" if sign else text))
    return rows


def _sign(
    models: Board, tests: Sequence[Mapping[str, Contrast]], position: int, measure: Metric, languages: int
) -> str:
    if position == 0 or not tests[position - 1][measure.key].significant:
        return ""
    mine, other = models[0][1][measure.key].value, models[position][1][measure.key].value
    assert mine is not None
    assert other is not None
    return BETTER if measure.distance(other, languages) < measure.distance(mine, languages) else WORSE


def intervals(models: Board, measures: Sequence[Metric]) -> list[list[str]]:
    """A row for each measure, a column for each model: the figure and its interval."""
    return [[m.title, *(_interval(m, figures[m.key]) for _, figures in models)] for m in measures]


def _interval(measure: Metric, figure: Estimate) -> str:
    text = measure.show(figure.value)
    if figure.low is not None:
        text += f" [{measure.show(figure.low)}, {measure.show(figure.high)}]"
    if figure.deviation is not None:
        text += f" ± {measure.show(figure.deviation)}"
    return text


def deltas(tests: Sequence[Mapping[str, Contrast]], measures: Sequence[Metric]) -> list[list[str]]:
    """A row for each measure, a column for each contrast: the difference and its p, bold if significant."""
    return [[m.title, *(_delta(m, test[m.key]) for test in tests)] for m in measures]


def _delta(measure: Metric, contrast: Contrast, mark: str = "**{}**") -> str:
    if contrast.difference is None:
        return "–"
    number = f"{contrast.difference:+.{measure.digits}f}".replace("-", "−")
    if not round(contrast.difference, measure.digits):
        number = f"{0:.{measure.digits}f}"
    if contrast.p is None:
        return number
    text = f"{number} ({p_value(contrast.p)})"
    return Markdown(mark.format(text) if contrast.significant else text)


def p_value(p: float) -> Markdown:
    return Markdown("p < 0.001" if p < 0.001 else f"p = {p:.3f}")


def by_language(benchmark: str, models: Sequence[Model], measures: Sequence[Metric]) -> list[dict[str, Any]]:
    """A table for each metric (`title`, `header`, `rows`): the language of the query by model."""
    header = ["language", *(model.title for model in models)]
    tables = []
    for measure in measures:
        parts = [model.detail(benchmark)[measure.setting][measure.name] for model in models]
        rows = [[lang, *(measure.show(part[lang]) for part in parts)] for lang in parts[0]]
        tables.append({"title": measure.title, "header": header, "rows": rows})
    return tables


# --- the terminal --------------------------------------------------------------------------------


def plain_table(
    benchmark: str,
    models: Board,
    tests: Sequence[Mapping[str, Contrast]],
    measures: Sequence[Metric],
    languages: int,
) -> str:
    """The comparison for a terminal, a line for each model."""
    header = [benchmark, *(_stacked(measure.title) for measure in measures)]
    rows = board(models, tests, measures, languages, "{}*")
    return render_table(header, rows, "l" + "r" * len(measures))


def plain_deltas(
    names: Sequence[str], tests: Sequence[Mapping[str, Contrast]], measures: Sequence[Metric]
) -> str:
    """Differences and p for a terminal, a line for each measure; † where significant."""
    rows = [[m.title, *(_delta(m, test[m.key], "{} †") for test in tests)] for m in measures]
    return render_table(["", *names], rows, "l" + "r" * len(names))


def plain_intervals(models: Board, measures: Sequence[Metric]) -> str:
    """Figures and intervals for a terminal, a line for each measure."""
    rows, names = intervals(models, measures), [title for title, _ in models]
    return render_table(["", *names], rows, "l" + "r" * len(names))


def plain_languages(result: Result, benchmark: str, centering: str, measures: Sequence[Metric]) -> str:
    """Figures by the question's language, for a terminal; across pairs, the mean over the others."""
    detail = result.benchmarks[benchmark]
    part = detail["centering"][centering]
    rows = []
    for lang in detail["languages"]:
        row, own = [lang], {lang, *(f"{lang}-{other}" for other in detail["languages"])}
        for measure in measures:
            cells = part[measure.setting][measure.name]
            known = [value for key, value in cells.items() if key in own and value is not None]
            row.append(measure.show(sum(known) / len(known) if known else None))
        rows.append(row)
    header = ["question in", *(_stacked(measure.title) for measure in measures)]
    return render_table(header, rows, "l" + "r" * len(measures))


def _stacked(title: str) -> str:
    """Over two lines, so that the table fits a terminal."""
    words = title.split()
    half = len(words) // 2
    return f"{' '.join(words[:half])}\n{' '.join(words[half:])}"


def matrix(cells: Sequence[Sequence[float | None]]) -> np.ndarray:
    """Float [question language, passage language]; NaN for none."""
    return np.array([[np.nan if cell is None else cell for cell in row] for row in cells])


def pair_matrix(languages: Sequence[str], detail: Mapping[str, Any]) -> np.ndarray:
    """Float [question language, passage language]: mAP, monolingual on the diagonal; NaN for none."""
    mono, cross = detail["mono"]["map"], detail["cross"]["map"]
    return matrix(
        [
            [mono[asked] if asked == found else cross[f"{asked}-{found}"] for found in languages]
            for asked in languages
        ]
    )
