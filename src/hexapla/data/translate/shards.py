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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice, pairwise
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Int64, Shaped, UInt64

from hexapla.config import Executor, Translate
from hexapla.data.translate import engines
from hexapla.io import cache, hashing, tables
from hexapla.parallel import executors
from hexapla.parallel.tasks import Failure, Task
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


class CollectedTable:
    """The table that `collect` wrote, read a part at a time.

    The part that was read last is held. So whoever goes through the parts, and within a part through the
    languages, reads each part once, and a table of one part is read once altogether.
    """

    def __init__(self, path: Path) -> None:
        """Find the parts; raises as `tables.table_files`."""
        self.path = path
        self.parts = tables.table_files(path)
        self._held: tuple[int, list[CollectedPair]] = (-1, [])

    def read(self, number: int) -> list[CollectedPair]:
        """Return the pairs of a part, in order; raises as `read_collected`."""
        if self._held[0] != number:
            self._held = (-1, [])  # Two parts at a time would double the memory.
            self._held = (number, list(read_collected(self.parts[number])))
        return self._held[1]


class Survey(NamedTuple):
    """What one pass over the collected table finds, in 16 bytes a text, in a file without a name."""

    rows: Counter[str]
    """Rows by language."""
    digests: UInt64[np.ndarray, "texts 2"]
    """Hashes of the texts of all English rows, in order; a mapped file."""
    lengths: list[Int64[np.ndarray, " pairs"]]
    """By part, how many texts each pair has."""
    own: dict[str, list[Int64[np.ndarray, " rows"]]]
    """By language and part, the positions of the pairs that came with a row in the language."""


def survey_table(table: CollectedTable) -> Survey:
    """Count the rows of the collected table and hash its texts, in one pass.

    Raises:
        UserError: the table has no English rows.
    """
    rows: Counter[str] = Counter()
    lengths: list[np.ndarray] = []
    own: dict[str, list[np.ndarray]] = {}
    with _scratch() as file:
        for number in range(len(table.parts)):
            pairs = table.read(number)
            rows.update(row.lang for pair in pairs for row in (pair.english, *pair.own.values()))
            texts = [list_texts(pair, SOURCE_LANGUAGE) for pair in pairs]
            lengths.append(np.fromiter(map(len, texts), np.int64))
            for lang in {lang for pair in pairs for lang in pair.own}:
                positions = [position for position, pair in enumerate(pairs) if lang in pair.own]
                own.setdefault(lang, [np.empty(0, np.int64)] * len(table.parts))[number] = np.array(positions)
            file.write(hashing.digests(chain.from_iterable(texts)).data)  # Says so when the disk is full.
        if not rows[SOURCE_LANGUAGE]:
            raise UserError(
                f"{table.path}: has no rows in '{SOURCE_LANGUAGE}', from which to translate; run `dvc repro`"
            )
        return Survey(rows, _map_rows(file, "<u8", 2), lengths, own)


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


def plan_shards(survey: Survey, lang: str, size: int) -> ShardPlan:
    """Plan a language's shards, in 8 bytes a text."""
    own = survey.own.get(lang)
    starts, bounds = [0], [0]
    with _scratch() as file:
        for part, lengths in enumerate(survey.lengths):
            bounds.append(bounds[-1] + int(lengths.sum()))
            needed = np.ones(len(lengths), bool)
            if own:
                needed[own[part]] = False
            starts.append(starts[-1] + int(lengths[needed].sum()))
            if own:
                digests = survey.digests[bounds[-2] : bounds[-1]]
                file.write(np.ascontiguousarray(digests[np.repeat(needed, lengths)]).data)
        digests = _map_rows(file, "<u8", 2) if own else survey.digests
        first = hashing.first_occurrences(digests)
    new = first == np.arange(starts[-1])
    owned = [0, *np.cumsum([np.count_nonzero(new[a:b]) for a, b in pairwise(starts)])]
    ranks = np.cumsum(new)[first] - 1
    return ShardPlan(lang, size, _map_file(ranks), starts, [int(rank) for rank in owned])


def _scratch() -> IO[bytes]:
    """Open a file without a name, so that not even a killed process leaves it behind."""
    cache.cache_root().mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=cache.cache_root())


def _map_file(values: Int64[np.ndarray, " values"]) -> Int64[np.ndarray, " values"]:
    with _scratch() as file:
        # Written, not mapped and then filled: on a full disk that would kill the process.
        file.write(np.ascontiguousarray(values).data)
        return _map_rows(file, values.dtype.str, 1).reshape(-1)


def _map_rows(file: IO[bytes], dtype: str, columns: int) -> Shaped[np.ndarray, "rows columns"]:
    file.flush()
    rows = file.tell() // (np.dtype(dtype).itemsize * columns)
    if not rows:  # An empty file can't be mapped.
        return np.empty((0, columns), dtype)
    return np.memmap(file, dtype, "r", shape=(rows, columns))


def cut_shards(
    plan: ShardPlan, number: int, pairs: Iterable[CollectedPair], identity: str
) -> Iterator[tuple[str, list[str]]]:
    """Give key and texts of the shards that a part owns.

    Args:
        plan: the language's.
        number: the part's.
        pairs: those of the part.
        identity: the engine's, for the language.
    """
    ranks, positions = np.unique(plan.part(number), return_index=True)
    owned = set(positions[ranks >= plan.owned[number]].tolist())
    texts = chain.from_iterable(list_texts(pair, plan.lang) for pair in pairs)
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


ENGLISH_COLUMN = Column(SOURCE_LANGUAGE)
"""The rows as they were collected."""


def make_rows(
    column: Column, number: int, pairs: Iterable[CollectedPair], counts: LanguageCounts
) -> Iterator[tuple[CollectedPair, Pair | None]]:
    """Give the pairs of a part, each with its row in the language; None for one that can't be made.

    Args:
        column: the language's.
        number: the part's.
        pairs: those of the part.
        counts: the language's; the rows are added to them.
    """
    if column.plan is None:
        for pair in pairs:
            yield pair, pair.english
        return
    found = iter(find_translations(column.plan, number, column.keys))
    for pair in pairs:
        translations = list(islice(found, len(list_texts(pair, column.lang))))
        yield pair, make_row(pair, column.lang, translations, column.engine, counts)


def translate_columns(
    table: CollectedTable, survey: Survey, settings: Translate, sample: Path, executor: Executor
) -> tuple[list[Column], TranslatedTexts]:
    """Translate what no earlier run has, and return the columns of all languages.

    Args:
        table: the collected table.
        survey: what is known of it.
        settings: engine and languages.
        sample: the folder of the shipped translations.
        executor: where the work is done.

    Raises:
        UserError: shards failed at every attempt; the others are kept.
    """
    clear_failures(_STAGE)
    columns = list(_plan_columns(survey, settings, sample))
    missing: set[str] = set()
    totals: Counter[str] = Counter()
    for number in range(len(table.parts)):
        for column, key, texts in _cut_part(table, columns, number):
            column.keys[number].append(key)
            if not has_rows(shard_file(key), len(texts)):
                missing.add(key)
                totals[column.lang] += len(texts)
    began = time.monotonic()
    if missing:
        _translate_missing(table, columns, missing, totals, settings, sample, executor)
    return columns, TranslatedTexts(totals, time.monotonic() - began)


def _plan_columns(survey: Survey, settings: Translate, sample: Path) -> Iterator[Column]:
    whole: ShardPlan | None = None  # All languages that need every text share one plan.
    for lang in settings.languages:
        plan = None if lang in survey.own else whole
        if plan is None:
            plan = plan_shards(survey, lang, settings.shard_texts)
        whole = whole if lang in survey.own else plan
        column = Column(lang, plan=plan._replace(lang=lang), keys=[[] for _ in survey.lengths])
        if len(plan.ranks):
            engine = engines.build_engine(settings, sample, lang)
            column = column._replace(engine=engine.name, identity=engine.identity(lang))
        yield column


def _cut_part(
    table: CollectedTable, columns: Iterable[Column], number: int
) -> Iterator[tuple[Column, str, list[str]]]:
    """Give column, key and texts of the shards of some columns in a part."""
    for column in columns:
        assert column.plan
        for key, texts in cut_shards(column.plan, number, table.read(number), column.identity):
            yield column, key, texts


def _translate_missing(
    table: CollectedTable,
    columns: Sequence[Column],
    missing: set[str],
    totals: Counter[str],
    settings: Translate,
    sample: Path,
    executor: Executor,
) -> None:
    def tasks() -> Iterator[Task]:
        for number in range(len(table.parts)):
            wanting = [column for column in columns if not missing.isdisjoint(column.keys[number])]
            for column, key, texts in _cut_part(table, wanting, number):
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
