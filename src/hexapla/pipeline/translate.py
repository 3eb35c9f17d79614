"""The English pairs and their translations, as far as the engine has them, and what each row is worth."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hexapla import tracking
from hexapla.config import Executor, Translate
from hexapla.data.translate import engines, quality, shards
from hexapla.data.translate.measures import MeasureSpread
from hexapla.data.translate.quality import PieceKeys
from hexapla.data.translate.shards import CollectedTable, Column, LanguageCounts, TranslatedTexts
from hexapla.io import cache, tables
from hexapla.schema import QUALITY_COLUMNS, SOURCE_LANGUAGE, UserError
from hexapla.text import languages

_log = logging.getLogger(__name__)


def translate(
    translate: Translate, executor: Executor, *, pairs: Path, sample: Path, out: Path, summary: Path
) -> None:
    """Write the pairs in English and in every configured language, each row with its quality.

    Translations, and the quality of rows, are kept as they come: a run after one that was killed, or with a
    language or a source more than the last, does only the rest.

    Args:
        translate: the section of params.yaml.
        executor: where the work runs.
        pairs: the table that `collect` wrote.
        sample: the folder of the sample, which the engine `memory` reads.
        out: the folder that gets the table, in parts of each language.
        summary: the JSON file that gets the counts.
    """
    cache.check_outputs(out, summary, inputs=[pairs])
    table = CollectedTable(pairs)
    survey = shards.survey_table(table)
    collected = survey.rows
    _check(translate, sample, collected)
    translated, now = shards.translate_columns(table, survey, translate, sample, executor)
    columns = [shards.ENGLISH_COLUMN, *translated]
    counts = {column.lang: LanguageCounts() for column in columns}
    cosine = translate.cosine, translate.cosine_prompt
    keys = quality.rate_columns(table, columns, counts, cosine, executor)
    spread = MeasureSpread()
    rows = _write(out, table, columns, keys, spread)
    card = {
        "engine": ", ".join(sorted({column.engine for column in translated} - {""})),
        "pairs": collected[SOURCE_LANGUAGE],
        "rows": rows,
        "languages": {column.lang: dataclasses.asdict(counts[column.lang]) for column in translated},
        "not_wanted": _list_unwanted(translate, collected),
        "quality": spread.summarize(),
    }
    cache.write_json(summary, card)
    _track(card, now)


def _check(settings: Translate, sample: Path, counts: Counter[str]) -> None:
    """Refuse what can't be done, before any work.

    A language whose rows all came with the data needs no engine; nor does a translation memory have to
    know a language that has rows already.
    """
    languages.check_languages(settings.languages, "translate.languages")
    wanting = [lang for lang in settings.languages if counts[lang] < counts[SOURCE_LANGUAGE]]
    if settings.engine == "memory":
        wanting = [lang for lang in wanting if not counts[lang]]
    if wanting:
        try:
            engines.check_engines(dataclasses.replace(settings, languages=tuple(wanting)), sample)
        except UserError as mistake:
            all_of = counts[SOURCE_LANGUAGE]
            own = [f"'{lang}' has {counts[lang]:,} of {all_of:,} rows" for lang in wanting if counts[lang]]
            raise UserError(f"{mistake}{'; of the data, ' if own else ''}{', '.join(own)}") from None
    if settings.cosine:
        quality.load_encoder(settings.cosine, settings.cosine_prompt)
    for lang, rows in _list_unwanted(settings, counts).items():
        _log.warning("%s rows in '%s' are left out: translate.languages does not name it", f"{rows:,}", lang)


def _list_unwanted(settings: Translate, counts: Counter[str]) -> dict[str, int]:
    return {lang: counts[lang] for lang in sorted({*counts} - {SOURCE_LANGUAGE, *settings.languages})}


def _write(
    out: Path, table: CollectedTable, columns: Sequence[Column], keys: PieceKeys, spread: MeasureSpread
) -> int:
    """Write the table as a folder, with one file for each language and collected part; return its rows."""
    written = 0
    with cache.atomic_folder(out) as scratch:
        for part, collected in enumerate(table.parts):
            for number, column in enumerate(columns):
                file = scratch / f"{number:02d}-{column.lang}-{collected.stem}.parquet"
                rated = _add_quality(table, column, part, keys[column.lang][part], spread)
                rows = tables.write_pairs(file, rated, QUALITY_COLUMNS)
                if not rows:
                    file.unlink()
                written += rows
    return written


def _add_quality(
    table: CollectedTable, column: Column, part: int, keys: Sequence[str], spread: MeasureSpread
) -> Iterator[tuple[object, ...]]:
    """Give the rows of a part of a column, each with its quality behind it."""
    for _, piece in quality.make_pieces(table, [column], part):
        ratings = quality.read_quality(keys[piece.number]) if piece.rows else []
        spread.add(column.lang, ratings)
        for row, rating in zip(piece.rows, ratings, strict=True):
            yield (*row, *rating)


def _track(card: Mapping[str, Any], now: TranslatedTexts) -> None:
    """Write a line in the log, and a run of MLflow."""
    counts = card["languages"]
    missing = sum(count["missing"] for count in counts.values())
    texts = now.texts.total()
    _log.info(
        "%s rows in %d languages, %s texts translated now; %s rows that %s could not translate are left out",
        f"{card['rows']:,}", 1 + len(counts), f"{texts:,}", f"{missing:,}", card["engine"] or "nobody",
    )  # fmt: skip
    with tracking.run("translate") as tracked:
        tracked.tags({"engine": card["engine"]})
        tracked.metrics({f"{lang}/{name}": n for lang, count in counts.items() for name, n in count.items()})
        tracked.metrics({"pairs": card["pairs"], "rows": card["rows"], "texts": texts})
        if texts:
            tracked.metrics({f"{lang}/texts": count for lang, count in now.texts.items()})
            tracked.metrics({"seconds": now.seconds, "texts_per_second": texts / now.seconds})
