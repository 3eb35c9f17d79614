"""A language's column of the parallel table: the translations that it wants, and the rows made of them."""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from hexapla.config import Executor, Translate
from hexapla.data.translate import engines, failures, parallel, textshards
from hexapla.data.translate.parallel import Bundle, Tally, Translations
from hexapla.data.translate.textshards import Plan
from hexapla.parallel import executors
from hexapla.parallel.executors import Task
from hexapla.schema import SOURCE_LANGUAGE, Pair

_STAGE = "translate"
_LIGHT = 256
"""Texts below which no process is started for them: a model's start takes longer."""
_MODELS = ("transformers", "ctranslate2")
"""Engines that use a GPU."""


class Column(NamedTuple):
    lang: str
    parts: Sequence[Path]
    """Of the collected table."""
    engine: str = ""
    """Its name, as it goes into the rows; '' where nothing is to be translated."""
    identity: str = ""
    plan: Plan | None = None
    """None of English."""
    keys: Sequence[list[str]] = ()
    """By part, those of its shards."""


class Done(NamedTuple):
    """What was translated now, and not before."""

    texts: Counter[str]
    """By language."""
    seconds: float


def english(parts: Sequence[Path]) -> Column:
    return Column(SOURCE_LANGUAGE, parts)


def rows(column: Column, number: int, tally: Tally) -> Iterator[tuple[Bundle, Pair | None]]:
    """The pairs of a part, each with its row in the language; None for one that can't be had."""
    if column.plan is None:
        for bundle in parallel.bundles(column.parts[number]):
            yield bundle, bundle.english
        return
    found = iter(textshards.translations(column.plan, number, column.keys))
    for bundle in parallel.bundles(column.parts[number]):
        own = list(islice(found, len(parallel.wanted(bundle, column.lang))))
        yield bundle, parallel.row(bundle, column.lang, own, column.engine, tally)


def translate(
    parts: Sequence[Path], own: Collection[str], settings: Translate, sample: Path, executor: Executor
) -> tuple[list[Column], Done]:
    """The columns of all languages, after each of their shards has its translations.

    Args:
        parts: of the collected table.
        own: the languages that it has rows in.
        settings: engine and languages.
        sample: the folder of the shipped translations.
        executor: where the work is done.

    Raises:
        UserError: shards failed, as often as the executor tries; the others are kept.
    """
    failures.clear(_STAGE)
    columns = list(_planned(parts, own, settings, sample))
    missing: set[str] = set()
    totals: Counter[str] = Counter()
    for column in columns:
        for number, key, texts in _shards(column, range(len(parts))):
            column.keys[number].append(key)
            if not textshards.held(textshards.place(key), len(texts)):
                missing.add(key)
                totals[column.lang] += len(texts)
    began = time.monotonic()
    if missing:
        _work(columns, missing, totals, settings, sample, executor)
    return columns, Done(totals, time.monotonic() - began)


def _planned(
    parts: Sequence[Path], own: Collection[str], settings: Translate, sample: Path
) -> Iterator[Column]:
    whole: Plan | None = None  # of the languages that want every text, and so have one plan
    for lang in settings.languages:
        plan = None if lang in own else whole
        if plan is None:
            plan = textshards.plan(parts, lang, settings.shard_texts)
        whole = whole if lang in own else plan
        column = Column(lang, parts, plan=plan._replace(lang=lang), keys=[[] for _ in parts])
        if len(plan.ranks):
            engine = engines.engine(settings, sample, lang)
            column = column._replace(engine=engine.name, identity=engine.identity(lang))
        yield column


def _shards(column: Column, numbers: Sequence[int]) -> Iterator[tuple[int, str, list[str]]]:
    """The number of their part, key and texts of the shards of some parts."""
    assert column.plan
    for number in numbers:
        for key, texts in textshards.shards(column.plan, number, column.identity):
            yield number, key, texts


def _work(
    columns: Sequence[Column],
    missing: set[str],
    totals: Counter[str],
    settings: Translate,
    sample: Path,
    executor: Executor,
) -> None:
    def tasks() -> Iterator[Task]:
        for column in columns:
            wanting = [number for number, keys in enumerate(column.keys) if not missing.isdisjoint(keys)]
            for _, key, texts in _shards(column, wanting):
                if key in missing:
                    yield Task(key, column.lang, (settings, sample, column.lang, texts), len(texts))

    def save(task: Task, found: list[Translations]) -> None:
        textshards.keep(task.key, found)

    if settings.engine == "memory":  # a look into a dictionary, whose files are here
        executor = replace(executor, kind="local", workers=1)
    failures.refuse(
        _STAGE,
        executors.run(
            translated,
            tasks(),
            executor,
            save=save,
            describe=_STAGE,
            totals=totals,
            light=_LIGHT,
            on_gpu=settings.engine in _MODELS,
        ),
        "texts",
    )


def translated(settings: Translate, sample: Path, lang: str, texts: list[str]) -> list[Translations]:
    """A shard's texts by the engine of the settings, wherever this runs."""
    found = engines.engine(settings, sample, lang).translate(texts, lang)
    if len(found) != len(texts):
        raise RuntimeError(f"the engine gave {len(found)} translations for {len(texts)} texts")
    return found
