"""From English rows to the columns of the parallel table: what has to be translated, in shards of work that survive.

Each different text of a language is in one shard. A part of the collected table owns the texts that come in it
first, and its shards are cut from those, so a part that is added after the others changes no shard of theirs. The
translations of a shard are one file, named by a hash of all that they depend on: what is there is not done again,
and what is not there can be done anywhere, in any order.

A row whose question or passage has no translation is left out and counted: nothing goes on in English under the
name of another language.
"""

import hashlib
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice, pairwise
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Int64, Shaped

from hexapla.config import Executor, Translate
from hexapla.data.translate import engines
from hexapla.io import cache, hashing, tables
from hexapla.parallel import executors
from hexapla.parallel.executors import Failure, Task
from hexapla.schema import SOURCE_LANGUAGE, Pair, UserError
from hexapla.text.normalize import contains_answer, find_answer

FORMAT = 1
"""Part of the names of shards: raise it whenever the same texts and engine would get other translations."""

_STAGE = "translate"
_COLUMN = "translations"
_LIGHT = 256
"""With fewer texts than this no process is started for them, since loading a model takes longer."""
_SHOWN = 200
"""Characters of an error that a message shows."""


# --- the collected table -----------------------------------------------------------------------

Translations = tuple[str, ...]
"""Translations of one text, best first; none where the engine has none."""


class CollectedPair(NamedTuple):
    """A pair as it was collected: its English row, and its rows in other languages that came with it."""

    english: Pair
    own: dict[str, Pair]


def read_collected(part: Path) -> Iterator[CollectedPair]:
    """Read the pairs of a part of the collected table, in order.

    Raises:
        UserError: a row in another language does not follow the English row of its id, or occurs twice.
    """
    current: CollectedPair | None = None
    for number, row in enumerate(tables.stream_pairs(part), 1):
        if row.lang == SOURCE_LANGUAGE:
            if current:
                yield current
            current = CollectedPair(row, {})
            continue
        where = f"{part}: row {number}: '{row.id}' in '{row.lang}'"
        if current is None or row.id != current.english.id:
            raise UserError(f"{where} does not follow its English row; run `dvc repro`")
        if row.lang in current.own:
            raise UserError(f"{where} occurs twice; run `dvc repro`")
        current.own[row.lang] = row
    if current:
        yield current


def count_rows(pairs: Path) -> Counter[str]:
    """Count the rows of the collected table by language.

    Raises:
        UserError: it has no English rows.
    """
    counts: Counter[str] = Counter()
    for batch in tables.stream_batches(pairs):
        counts.update(batch.column("lang").to_pylist())
    if not counts[SOURCE_LANGUAGE]:
        raise UserError(
            f"{pairs}: has no rows in '{SOURCE_LANGUAGE}', from which to translate; run `dvc repro`"
        )
    return counts


# --- rows --------------------------------------------------------------------------------------


@dataclass
class LanguageCounts:
    """What became of a language's rows.

    `original` rows came in the language; of `missing` rows the question or passage has no translation. Among
    the translated ones, `answers_lost` have no answer in their passage; `negatives_lost` counts negatives
    without translation.
    """

    translated: int = 0
    original: int = 0
    missing: int = 0
    answers_lost: int = 0
    negatives_lost: int = 0


def list_texts(pair: CollectedPair, lang: str) -> tuple[str, ...]:
    """List the texts whose translations make the pair's row: question, passage, answer if any, negatives."""
    if lang in pair.own:
        return ()
    row = pair.english
    return (row.question, row.passage, *((row.answer,) if row.answer else ()), *row.negatives)


def make_row(
    pair: CollectedPair,
    lang: str,
    translations: Sequence[Translations],
    engine: str,
    counts: LanguageCounts,
) -> Pair | None:
    """Make the pair's row in a language; None when question or passage has no translation.

    The answer has to occur in the passage: it is the engine's first translation that does, in whatever case
    of letters (then as the passage has it), else ''. Negatives without translation are left out.

    Args:
        pair: as it was collected; a row that came in the language stays.
        lang: the language.
        translations: those of the texts that `list_texts` lists.
        engine: the name that goes into the row.
        counts: the language's; the row is added to them.
    """
    if own := pair.own.get(lang):
        counts.original += 1
        return own
    if not translations[0] or not translations[1]:
        counts.missing += 1
        return None
    english, passage = pair.english, translations[1][0]
    answer = _choose_answer(translations[2], passage, lang) if english.answer else ""
    negatives = translations[3 if english.answer else 2 :]
    kept = tuple(each[0] for each in negatives if each)
    counts.translated += 1
    counts.answers_lost += bool(english.answer and not answer)
    counts.negatives_lost += len(negatives) - len(kept)
    question = translations[0][0]
    return english._replace(
        lang=lang, question=question, passage=passage, answer=answer, engine=engine, negatives=kept
    )


def _choose_answer(translations: Translations, passage: str, lang: str) -> str:
    for text in translations:
        if contains_answer(passage, text, lang):
            return text
    for text in translations:
        if match := find_answer(passage, text, lang, ignore_case=True):
            return passage[slice(*match)]
    return ""


# --- shards ------------------------------------------------------------------------------------


class ShardPlan(NamedTuple):
    """Where the translation of each text that a language needs is to be found."""

    lang: str
    parts: Sequence[Path]
    size: int
    """Texts of a shard; the last one of a part may have fewer."""
    ranks: Int64[np.ndarray, " texts"]
    """The position of each text, in the order of the parts, among the different texts; a mapped file."""
    starts: list[int]
    """[parts + 1]: where the texts of each part begin in `ranks`."""
    owned: list[int]
    """[parts + 1]: the first rank that each part owns."""

    def part(self, number: int) -> Int64[np.ndarray, " texts"]:
        """Return the ranks of the texts that a part needs."""
        return np.asarray(self.ranks[self.starts[number] : self.starts[number + 1]])


def _read_texts(part: Path, lang: str) -> Iterator[str]:
    """Read what a part needs translated, in order; equal texts come as often as they occur."""
    return chain.from_iterable(list_texts(pair, lang) for pair in read_collected(part))


def plan_shards(parts: Sequence[Path], lang: str, size: int) -> ShardPlan:
    """Plan a language's shards: read the table once and keep 8 bytes a text, in a file without a name."""
    starts = [0]
    with _scratch() as file:
        for part in parts:
            keys = hashing.digests(_read_texts(part, lang))
            file.write(keys.data)  # Unlike `tofile`, this says so when the disk is full.
            starts.append(starts[-1] + len(keys))
        file.flush()
        total = starts[-1]
        first = (
            hashing.first_occurrences(np.memmap(file, "<u8", "r", shape=(total, 2)))
            if total
            else np.empty(0, int)
        )
    new = first == np.arange(total)
    owned = [0, *np.cumsum([np.count_nonzero(new[a:b]) for a, b in pairwise(starts)])]
    ranks = np.cumsum(new)[first] - 1
    return ShardPlan(lang, parts, size, _map_file(ranks), starts, [int(rank) for rank in owned])


def _scratch() -> IO[bytes]:
    """Open a file without a name, so that not even a killed process leaves it behind."""
    cache.cache_root().mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=cache.cache_root())


def _map_file(values: Shaped[np.ndarray, " values"]) -> Shaped[np.ndarray, " values"]:
    if not len(values):
        return values
    with _scratch() as file:
        # Written, not mapped and then filled: on a full disk that would kill the process.
        file.write(np.ascontiguousarray(values).data)
        file.flush()
        return np.memmap(file, values.dtype, "r", shape=values.shape)


def cut_shards(plan: ShardPlan, number: int, identity: str) -> Iterator[tuple[str, list[str]]]:
    """Give key and texts of the shards that a part owns; `identity` is the engine's, for the language."""
    ranks, positions = np.unique(plan.part(number), return_index=True)
    owned = set(positions[ranks >= plan.owned[number]].tolist())
    texts = _read_texts(plan.parts[number], plan.lang)
    mine = [text for position, text in enumerate(texts) if position in owned]
    for start in range(0, len(mine), plan.size):
        shard = mine[start : start + plan.size]
        yield hash_values("texts", FORMAT, plan.lang, identity, *shard), shard


def hash_values(*values: object) -> str:
    """Return the SHA-256 of some values in order; other values, or another number of them, have another one."""
    digest = hashlib.sha256()
    for value in values:
        data = str(value).encode()
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def shard_file(key: str) -> Path:
    """Return the file that keeps a shard's translations."""
    return cache.entry(_STAGE, key)


def has_rows(file: Path, rows: int) -> bool:
    """Return whether a result exists and has as many rows as it must have."""
    try:
        return tables.count_rows(file) == rows
    except UserError:
        return False


def remove_broken(file: Path) -> UserError:
    """Remove a result that was there and can't be read, so that it will be made again; return the error."""
    file.unlink(missing_ok=True)
    return UserError(f"{file}: broken or gone; run `dvc repro` again, which makes it anew")


def write_shard(key: str, translations: Sequence[Translations]) -> None:
    """Keep the translations of a shard's texts."""
    values = np.array([text for each in translations for text in each], object)
    lengths = np.array([len(each) for each in translations], np.int64)
    tables.write_columns(shard_file(key), {_COLUMN: tables.Ragged(values, lengths)})


def read_shard(key: str) -> list[Translations]:
    """Read what `write_shard` wrote.

    Raises:
        UserError: the file is gone or can't be read; then it is removed, so that it will be made again.
    """
    try:
        column = tables.read_columns(shard_file(key))[_COLUMN]
    except (UserError, KeyError) as error:
        raise remove_broken(shard_file(key)) from error
    assert isinstance(column, tables.Ragged)
    values, ends = column.values.tolist(), np.cumsum(column.lengths).tolist()
    return [tuple(values[a:b]) for a, b in zip([0, *ends], ends, strict=False)]


def find_translations(plan: ShardPlan, number: int, keys: Sequence[Sequence[str]]) -> list[Translations]:
    """Find the translations of each text that a part needs, reading each shard once.

    Args:
        plan: the language's.
        number: the part's.
        keys: the keys of each part's shards.
    """
    ranks, positions = np.unique(plan.part(number), return_inverse=True)
    owners = np.searchsorted(plan.owned, ranks, side="right") - 1
    offsets = ranks - np.asarray(plan.owned)[owners]
    shards = zip(owners.tolist(), (offsets // plan.size).tolist(), strict=True)
    found: list[Translations] = []
    for (owner, shard), group in groupby(zip(shards, (offsets % plan.size).tolist(), strict=True), _first):
        translations = read_shard(keys[owner][shard])
        found += [translations[position] for _, position in group]
    return [found[position] for position in positions]


def _first(pair: tuple[tuple[int, int], int]) -> tuple[int, int]:
    return pair[0]


# --- columns -----------------------------------------------------------------------------------


class Column(NamedTuple):
    """A language's column of the parallel table."""

    lang: str
    parts: Sequence[Path]
    """The parts of the collected table."""
    engine: str = ""
    """The engine's name, as it goes into the rows; '' where nothing is to be translated."""
    identity: str = ""
    plan: ShardPlan | None = None
    """None for English."""
    keys: Sequence[list[str]] = ()
    """The keys of each part's shards."""


class TranslatedTexts(NamedTuple):
    """What was translated now, and not by an earlier run."""

    texts: Counter[str]
    """By language."""
    seconds: float


def english_column(parts: Sequence[Path]) -> Column:
    """Return the column of the rows as they were collected."""
    return Column(SOURCE_LANGUAGE, parts)


def make_rows(
    column: Column, number: int, counts: LanguageCounts
) -> Iterator[tuple[CollectedPair, Pair | None]]:
    """Give the pairs of a part, each with its row in the language; None for one that can't be made."""
    if column.plan is None:
        for pair in read_collected(column.parts[number]):
            yield pair, pair.english
        return
    found = iter(find_translations(column.plan, number, column.keys))
    for pair in read_collected(column.parts[number]):
        translations = list(islice(found, len(list_texts(pair, column.lang))))
        yield pair, make_row(pair, column.lang, translations, column.engine, counts)


def translate_columns(
    parts: Sequence[Path], own: Collection[str], settings: Translate, sample: Path, executor: Executor
) -> tuple[list[Column], TranslatedTexts]:
    """Translate what no earlier run has, and return the columns of all languages.

    Args:
        parts: the parts of the collected table.
        own: the languages that it has rows in.
        settings: engine and languages.
        sample: the folder of the shipped translations.
        executor: where the work is done.

    Raises:
        UserError: shards failed at every attempt; the others are kept.
    """
    clear_failures(_STAGE)
    columns = list(_plan_columns(parts, own, settings, sample))
    missing: set[str] = set()
    totals: Counter[str] = Counter()
    for column in columns:
        for number, key, texts in _cut_column(column, range(len(parts))):
            column.keys[number].append(key)
            if not has_rows(shard_file(key), len(texts)):
                missing.add(key)
                totals[column.lang] += len(texts)
    began = time.monotonic()
    if missing:
        _translate_missing(columns, missing, totals, settings, sample, executor)
    return columns, TranslatedTexts(totals, time.monotonic() - began)


def _plan_columns(
    parts: Sequence[Path], own: Collection[str], settings: Translate, sample: Path
) -> Iterator[Column]:
    whole: ShardPlan | None = None  # All languages that need every text share one plan.
    for lang in settings.languages:
        plan = None if lang in own else whole
        if plan is None:
            plan = plan_shards(parts, lang, settings.shard_texts)
        whole = whole if lang in own else plan
        column = Column(lang, parts, plan=plan._replace(lang=lang), keys=[[] for _ in parts])
        if len(plan.ranks):
            engine = engines.build_engine(settings, sample, lang)
            column = column._replace(engine=engine.name, identity=engine.identity(lang))
        yield column


def _cut_column(column: Column, numbers: Sequence[int]) -> Iterator[tuple[int, str, list[str]]]:
    """Give part, key and texts of the shards of some parts."""
    assert column.plan
    for number in numbers:
        for key, texts in cut_shards(column.plan, number, column.identity):
            yield number, key, texts


def _translate_missing(
    columns: Sequence[Column],
    missing: set[str],
    totals: Counter[str],
    settings: Translate,
    sample: Path,
    executor: Executor,
) -> None:
    def tasks() -> Iterator[Task]:
        for column in columns:
            numbers = [number for number, keys in enumerate(column.keys) if not missing.isdisjoint(keys)]
            for _, key, texts in _cut_column(column, numbers):
                if key in missing:
                    yield Task(key, column.lang, (settings, sample, column.lang, texts), len(texts))

    def save(task: Task, translations: list[Translations]) -> None:
        write_shard(task.key, translations)

    if settings.engine == "memory":  # A look into a dictionary, whose files are on this machine.
        executor = replace(executor, kind="local", workers=1)
    failed = executors.run(
        translate_shard,
        tasks(),
        executor,
        save=save,
        describe=_STAGE,
        totals=totals,
        light=_LIGHT,
        on_gpu=settings.engine in engines.ON_GPU,
    )
    refuse_failures(_STAGE, failed, "texts")


def translate_shard(settings: Translate, sample: Path, lang: str, texts: list[str]) -> list[Translations]:
    """Translate a shard's texts by the engine of the settings, wherever this runs."""
    translations = engines.build_engine(settings, sample, lang).translate(texts, lang)
    if len(translations) != len(texts):
        raise RuntimeError(f"the engine gave {len(translations)} translations for {len(texts)} texts")
    return translations


# --- failures ----------------------------------------------------------------------------------


def failure_folder(stage: str) -> Path:
    """Return the folder that describes the tasks that failed in the stage's last run, one file for each."""
    return cache.cache_root() / stage / "failed"


def clear_failures(stage: str) -> None:
    """Forget the failures of earlier runs."""
    shutil.rmtree(failure_folder(stage), ignore_errors=True)


def refuse_failures(stage: str, failures: Sequence[Failure], unit: str) -> None:
    """Write down what failed and why; then raise UserError, if anything did.

    Args:
        stage: whose folder gets the files.
        failures: all tasks that failed.
        unit: what the tasks' sizes count.
    """
    folder = failure_folder(stage)
    for failed in failures:
        key, label, _, size = failed.task
        cache.write_json(folder / f"{key}.json", {"label": label, unit: size, "error": failed.error})
    if failures:
        by_label = Counter(failed.task.label for failed in failures)
        counts = ", ".join(f"{label} {count}" for label, count in by_label.items())
        raise UserError(
            f"{stage}: {len(failures)} pieces of work failed ({counts}), the first with: "
            f"{failures[0].error[:_SHOWN]}; {folder} describes all; what succeeded is kept, so mend "
            "this and run it again"
        )
