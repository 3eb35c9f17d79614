"""The English pairs and their translations, as far as the engine has them, and what each row is worth."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hexapla import tracking
from hexapla.config import Executor, Translate
from hexapla.data.translate import columns, engines, parallel, pieces, ratings
from hexapla.data.translate.columns import Column, Done
from hexapla.data.translate.parallel import Tally
from hexapla.data.translate.quality import Spread
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
    tables.refuse_other(out)
    parts = tables.table_files(pairs)
    counts = parallel.count(pairs)
    _check(translate, sample, counts)
    found, done = columns.translate(parts, counts, translate, sample, executor)
    table = [columns.english(parts), *found]
    tallies = {column.lang: Tally() for column in table}
    rated = ratings.rate_all(table, tallies, translate.cosine, executor)
    spread = Spread()
    written = _write(out, table, rated, spread)
    card = {
        "engine": ", ".join(sorted({column.engine for column in found} - {""})),
        "pairs": counts[SOURCE_LANGUAGE],
        "rows": written,
        "languages": {column.lang: dataclasses.asdict(tallies[column.lang]) for column in found},
        "not_wanted": _not_wanted(translate, counts),
        "quality": spread.card(),
    }
    cache.write_json(summary, card)
    _track(card, done)


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
            engines.check(dataclasses.replace(settings, languages=tuple(wanting)), sample)
        except UserError as mistake:
            all_of = counts[SOURCE_LANGUAGE]
            own = [f"'{lang}' has {counts[lang]:,} of {all_of:,} rows" for lang in wanting if counts[lang]]
            raise UserError(f"{mistake}{'; of the data, ' if own else ''}{', '.join(own)}") from None
    if settings.cosine:
        ratings.check(settings.cosine)
    for lang, rows in _not_wanted(settings, counts).items():
        _log.warning("%s rows in '%s' are left out: translate.languages does not name it", f"{rows:,}", lang)


def _not_wanted(settings: Translate, counts: Counter[str]) -> dict[str, int]:
    return {lang: counts[lang] for lang in sorted({*counts} - {SOURCE_LANGUAGE, *settings.languages})}


def _write(out: Path, table: Sequence[Column], rated: ratings.Keys, spread: Spread) -> int:
    """The table as a folder of parts, one a language and collected part; how many rows it has."""
    written = 0
    with cache.atomic_folder(out) as scratch:
        for number, column in enumerate(table):
            for part, collected in enumerate(column.parts):
                file = scratch / f"{number:02d}-{column.lang}-{collected.stem}.parquet"
                rows = tables.write_pairs(file, _rows(column, part, rated, spread), QUALITY_COLUMNS)
                if not rows:
                    file.unlink()
                written += rows
    return written


def _rows(column: Column, part: int, rated: ratings.Keys, spread: Spread) -> Iterator[tuple[object, ...]]:
    """The rows of a part of a column, each with its quality behind it."""
    for piece in pieces.cut(columns.rows(column, part, Tally())):
        found = pieces.kept(rated[column.lang][part][piece.number]) if piece.rows else []
        spread.add(column.lang, found)
        for row, quality in zip(piece.rows, found, strict=True):
            yield (*row, *quality)


def _track(card: Mapping[str, Any], done: Done) -> None:
    """A line in the log, and a run of MLflow."""
    tallies = card["languages"]
    missing = sum(tally["missing"] for tally in tallies.values())
    texts = done.texts.total()
    _log.info(
        "%s rows in %d languages, %s texts translated now; %s rows that %s could not translate are left out",
        f"{card['rows']:,}", 1 + len(tallies), f"{texts:,}", f"{missing:,}", card["engine"] or "nobody",
    )  # fmt: skip
    with tracking.run("translate") as tracked:
        tracked.tags({"engine": card["engine"]})
        tracked.metrics({f"{lang}/{name}": n for lang, tally in tallies.items() for name, n in tally.items()})
        tracked.metrics({"pairs": card["pairs"], "rows": card["rows"], "texts": texts})
        if texts:
            tracked.metrics({f"{lang}/texts": count for lang, count in done.texts.items()})
            tracked.metrics({"seconds": done.seconds, "texts_per_second": texts / done.seconds})
