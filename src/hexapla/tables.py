"""What models scored, as rows of cells: Markdown for the report, plain text for the terminal."""

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from hexapla.scoreboard import MEASURES, Measure, Scores, best


class Model(NamedTuple):
    """A model and what its stages wrote of it."""

    name: str
    training: Mapping[str, Any]
    scores: Mapping[str, Scores]
    """By benchmark; the headline figures."""
    languages: Mapping[str, Any]
    """By benchmark; figures by language and by pair of languages."""

    @property
    def title(self) -> str:
        """`monolingual`; of a model that is not called after its sampler, `candidate (hybrid, α 0.5)`."""
        sampler, alpha = self.training["sampler"], self.training["alpha"]
        how = sampler if alpha is None else f"{sampler}, α {alpha:g}"
        return self.name if self.name == sampler else f"{self.name} ({how})"


# --- Markdown ----------------------------------------------------------------------------------

_SPECIAL = str.maketrans({mark: f"\\{mark}" for mark in string.punctuation if mark in "\\`*_{}[]<>#|&~$"})


def plain(text: str) -> str:
    """Text from data or parameters, such that Markdown takes none of it for markup."""
    return " ".join(str(text).split()).translate(_SPECIAL)


def code(text: str) -> str:
    return " ".join(str(text).split()).replace("`", "'").replace("|", "/")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """A Markdown table; the first `left` columns to the left, the others (figures) to the right."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    align = ["left" if i < left else "right" for i in range(len(header))]
    return tabulate(cells, header, tablefmt="pipe", colalign=align, disable_numparse=True)


# --- rows ----------------------------------------------------------------------------------------


def board(
    benchmark: str,
    models: Sequence[Model],
    measures: Iterable[Measure],
    languages: int,
    mark: str = "**{}**",
    escape: Callable[[str], str] = plain,
) -> list[list[str]]:
    """A row for each model, a column for each measure, the best put into `mark`."""
    scores_of = [model.scores[benchmark] for model in models]
    rows = [[escape(model.title)] for model in models]
    for measure in measures:
        leaders = best(measure, scores_of, languages)
        for position, (row, scores) in enumerate(zip(rows, scores_of, strict=True)):
            text = measure.show(scores[measure.key])
            row.append(mark.format(text) if position in leaders else text)
    return rows


def deltas(benchmark: str, models: Sequence[Model], languages: int) -> list[list[str]]:
    """The first model minus each other one, in the digits that are shown; bold where it is better."""
    candidate = models[0].scores[benchmark]
    rows = []
    for model in models[1:]:
        row = [plain(model.title)]
        for measure in MEASURES.values():
            mine, other = candidate[measure.key], model.scores[benchmark][measure.key]
            row.append("–" if mine is None or other is None else _delta(measure, mine, other, languages))
        rows.append(row)
    return rows


def _delta(measure: Measure, mine: float, other: float, languages: int) -> str:
    change = round(mine, measure.digits) - round(other, measure.digits)
    text = f"{change:+.{measure.digits}f}".replace("-", "−")
    if not float(f"{change:.{measure.digits}f}"):
        return f"{0:.{measure.digits}f}"
    better = measure.distance(mine, languages) < measure.distance(other, languages)
    return f"**{text}**" if better else text


def by_language(benchmark: str, models: Sequence[Model]) -> list[str]:
    """Multilingual mAP and rank distance of each model by the question's language."""
    tables = []
    for key, measure in (("map", MEASURES["map_multi"]), ("rank_distance", MEASURES["rank_distance"])):
        rows = [
            [
                plain(lang),
                *(measure.show(model.languages[benchmark]["multi"][key][lang]) for model in models),
            ]
            for lang in models[0].languages[benchmark]["languages"]
        ]
        tables.append(f"{measure.title} by the question's language:")
        tables.append(table(["language", *(plain(model.title) for model in models)], rows))
    return tables


def plain_table(models: Sequence[Model]) -> str:
    """The comparison for a terminal: a line for each model, a block for each benchmark."""
    blocks = []
    for benchmark, detail in models[0].languages.items():
        header = [benchmark, *(_stacked(measure.title) for measure in MEASURES.values())]
        marks = board(benchmark, models, MEASURES.values(), len(detail["languages"]), "{}*", str)
        align = ["left", *["right"] * len(MEASURES)]
        blocks.append(tabulate(marks, header, disable_numparse=True, colalign=align))
    note = "* best: highest mAP and recall, lowest rank distance, own language nearest to its fair share"
    return "\n\n".join([*blocks, note])


def _stacked(title: str) -> str:
    """Over two lines, so that the table fits a terminal."""
    words = title.split()
    half = len(words) // 2
    return f"{' '.join(words[:half])}\n{' '.join(words[half:])}"


def pair_matrix(detail: Mapping[str, Any]) -> np.ndarray:
    """Float [question language, passage language]: mAP, monolingual on the diagonal; NaN for none."""
    languages, mono, cross = detail["languages"], detail["mono"]["map"], detail["cross"]["map"]
    rows = [
        [mono[asked] if asked == found else cross[f"{asked}-{found}"] for found in languages]
        for asked in languages
    ]
    return np.array([[np.nan if value is None else value for value in row] for row in rows])
