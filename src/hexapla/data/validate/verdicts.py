"""Which rows of a part of the parallel table fail what is expected of a row by itself, and why.

A pure function of the part, the benchmarks' texts and the settings, so that parts can be judged anywhere and
what was judged once is kept. Texts are held some thousands at a time; what goes on, to be judged beside all
other rows, is some dozens of bytes a row.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hexapla.config_data import Validate
from hexapla.data.validate import checks, contamination, expectations
from hexapla.data.validate.contamination import Hit, Known, Owner
from hexapla.io import hashing, tables
from hexapla.schema import QUALITY_COLUMNS, SOURCE_LANGUAGE
from hexapla.text import languages as text_languages
from hexapla.text import normalize

IDENTIFIED: Mapping[str, tuple[str, ...]] = {
    "off": (),
    "passage": ("passage",),
    "both": ("question", "passage"),
}
"""By `validate.language`, the texts whose language is looked at."""

Columns = dict[str, Any]
"""By name a list or an array with a value for each row."""


class Group(NamedTuple):
    """The rows of one language and one source in a part."""

    lang: str
    """'' when it is no language code."""
    source: str
    rows: int
    outcomes: list[checks.Outcome]


class Judged(NamedTuple):
    """A part's verdicts.

    Columns: `id`, `lang`; `group`, the position of the row's group; the keys `ids_*`, `rows_*` (id and
    language) and `pairs_*` (language, question and passage, normalised), 16 bytes each in two halves;
    `named`, whether the row has id and language; `failed`, whether it fails anything, and the `reasons`;
    `faults`, of each negative what `normalize.find_fault` says.
    """

    columns: Columns
    groups: list[Group]
    hits: list[Hit]
    """In the order of the rows."""


def judge(file: str, texts: str, validate: Validate) -> Judged:
    """Of one part; `texts` is the file that `contamination.gather` made.

    Raises:
        UserError: the part can't be read.
    """
    known = contamination.known(Path(texts), validate.max_overlap)
    stretches: list[Columns] = []
    hits: list[Hit] = []
    waiting: list[Columns] = []
    groups: dict[tuple[str, str], Group] = {}
    rows = 0
    for batch in tables.stream_batches(Path(file)):
        columns, found = measure(
            {name: batch.column(name).to_pylist() for name in batch.schema.names}, known, validate, rows
        )
        rows += batch.num_rows
        hits += found
        waiting.append(columns)
        if sum(len(each["row"]) for each in waiting) >= tables.PART_ROWS:
            stretches.append(_judged(_joined(waiting), validate, groups))
            waiting = []
    if waiting:
        stretches.append(_judged(_joined(waiting), validate, groups))
    return Judged(_joined(stretches), list(groups.values()), sorted(hits))


def _joined(stretches: Sequence[Columns]) -> Columns:
    return {name: _concatenated([each[name] for each in stretches]) for name in stretches[0]}


def _concatenated(columns: Sequence[Any]) -> Any:
    if isinstance(columns[0], tables.Ragged):
        return tables.Ragged(*(np.concatenate(arrays) for arrays in zip(*columns, strict=True)))
    if isinstance(columns[0], np.ndarray):
        return np.concatenate(columns)
    return [value for column in columns for value in column]


# --- measuring -------------------------------------------------------------------------------------


def measure(texts: Columns, known: Known, validate: Validate, before: int) -> tuple[Columns, list[Hit]]:
    """What is judged and what goes on, and the texts that stand in a benchmark.

    Args:
        texts: the columns of some rows of the parallel table, lists.
        known: the benchmarks' texts.
        validate: the settings.
        before: rows of the part that stand before these.
    """
    ids, languages = texts["id"], texts["lang"]
    owners = [Owner(before + i, *who) for i, who in enumerate(zip(ids, languages, strict=True))]
    found: Columns = {name: texts[name] for name in ("id", "lang", "source", "passage_id", *QUALITY_COLUMNS)}
    for name in ("id", "passage_id"):  # an empty one is none
        found[name] = [each or None for each in texts[name]]
    found["row"] = np.arange(before, before + len(ids))
    keys = {name: normalize.normalize_texts(texts[name]) for name in ("question", "passage")}
    leaks: list[dict[str, None]] = [{} for _ in ids]
    hits = []
    for name, normalised in keys.items():
        found[f"{name}_chars"] = np.array([len((text or "").strip()) for text in texts[name]], np.int64)
        found[f"{name}_script"] = _scripts(texts[name], languages)
        for number, hit in contamination.hits(known, name, normalised, owners):
            leaks[number][hit.benchmark] = None
            hits.append(hit)
    found["in_benchmark"] = [", ".join(names) or None for names in leaks]
    found["answer_found"] = [
        answer in (passage or "") if answer else None
        for answer, passage in zip(texts["answer"], texts["passage"], strict=True)
    ]
    found["faults"], more = _faults(texts, keys["passage"], known, validate, owners)
    found |= _halves("ids", [key or "" for key in ids])
    found |= _halves("rows", [f"{key}\n{lang}" for key, lang in zip(ids, languages, strict=True)])
    plain = zip((lang or "" for lang in languages), keys["question"], keys["passage"], strict=True)
    return found | _halves("pairs", ["\n".join(each) for each in plain]), hits + more


def _halves(name: str, texts: Sequence[str]) -> Columns:
    digests = hashing.digests(texts)
    return {f"{name}_{half}": np.ascontiguousarray(digests[:, half]) for half in range(2)}


def _scripts(texts: Sequence[str | None], languages: Sequence[str | None]) -> np.ndarray:
    shares = np.full(len(texts), np.nan)
    for lang in dict.fromkeys(languages):
        mine = [i for i, each in enumerate(languages) if each == lang]
        shares[mine] = text_languages.script_shares([texts[i] for i in mine], lang or "")
    return shares


def _faults(
    texts: Columns, passages: Sequence[str], known: Known, validate: Validate, owners: Sequence[Owner]
) -> tuple[tables.Ragged, list[Hit]]:
    """What each negative has that it may not have, and those that stand in a benchmark."""
    lists = [tuple(text or "" for text in each or ()) for each in texts["negatives"]]
    lengths = np.array([len(each) for each in lists], np.int64)
    rows = np.repeat(np.arange(len(lists)), lengths).tolist()
    negatives = [text for each in lists for text in each]
    keys = normalize.normalize_texts(negatives)
    found = contamination.hits(known, "negatives", keys, [owners[row] for row in rows])
    held = {number for number, _ in found}
    bounds = cache(validate.bounds)
    faults = np.zeros(len(negatives), np.int8)
    for number, (row, negative) in enumerate(zip(rows, negatives, strict=True)):
        least_and_most = bounds(texts["lang"][row] or "", texts["source"][row] or "")
        own = normalize.Positive(
            passages[row],
            (texts["answer"][row] or "") if validate.answer_in_passage else "",
            (least_and_most["min_passage_chars"], least_and_most["max_passage_chars"]),
        )
        faults[number] = normalize.find_fault(negative, keys[number], own, in_benchmark=number in held)
    return tables.Ragged(faults, lengths), [hit for _, hit in found]


# --- judging ---------------------------------------------------------------------------------------

_CARRIED = ("id", "lang", "faults", *(f"{key}_{half}" for key in ("ids", "rows", "pairs") for half in (0, 1)))
_NUMBERS = ("question_script", "passage_script", "length_ratio", "copy_share", "numbers_kept", "cosine")
_OTHERS = ("row", "id", "lang", "passage_id", "question_chars", "passage_chars", "question_language")
_FRAME = (*_OTHERS, "passage_language", "answer_found", "in_benchmark", *_NUMBERS)


def _judged(measured: Columns, validate: Validate, groups: dict[tuple[str, str], Group]) -> Columns:
    """The columns of `Judged` for some rows; adds them to their `groups`."""
    import pandas as pd

    frame = pd.DataFrame({name: measured[name] for name in _FRAME})
    for name in _NUMBERS:
        frame[name] = frame[name].astype(float)  # of None alone, pandas makes no numbers
    first = int(frame["row"].iloc[0])
    places = np.zeros(len(frame), np.int32)
    reasons: list[list[str]] = [[] for _ in range(len(frame))]
    for (lang, source), rows in by_group(measured["lang"], measured["source"]).items():
        wanted = expectations.alone(
            lang,
            validate.bounds(lang, source),
            identified=IDENTIFIED[validate.language],
            answer_in_passage=validate.answer_in_passage,
        )
        verdicts = checks.judge(frame.iloc[rows], wanted)
        earlier = groups.get((lang, source)) or Group(lang, source, 0, [])
        outcomes = checks.merged([*earlier.outcomes, *(verdict.outcome for verdict in verdicts)])
        groups[lang, source] = Group(lang, source, earlier.rows + len(rows), outcomes)
        places[rows] = list(groups).index((lang, source))
        for verdict in verdicts:
            for row in verdict.rows.tolist():
                reasons[row - first].append(_reason(verdict.rule, measured, row - first))
    named = [None not in who for who in zip(measured["id"], measured["lang"], strict=True)]
    return {name: measured[name] for name in _CARRIED} | {
        "group": places,
        "named": np.array(named, bool),
        "english": np.array([lang == SOURCE_LANGUAGE for lang in measured["lang"]], bool),
        "failed": np.array([bool(each) for each in reasons], bool),
        "reasons": ["; ".join(each) or None for each in reasons],
    }


def by_group(languages: Sequence[str | None], sources: Sequence[str | None]) -> dict[tuple[str, str], Any]:
    """The positions of each language's and source's rows, int64, in order of appearance."""
    found: dict[tuple[str, str], list[int]] = {}
    for row, (lang, source) in enumerate(zip(languages, sources, strict=True)):
        found.setdefault((lang or "", source or ""), []).append(row)
    # Whatever stands in the column of languages: those that are none are one group.
    merged: dict[tuple[str, str], list[int]] = {}
    for (lang, source), rows in found.items():
        merged.setdefault((lang if expectations.is_code(lang) else "", source), []).extend(rows)
    return {group: np.array(sorted(rows)) for group, rows in merged.items()}


def _reason(rule: expectations.Rule, measured: Columns, row: int) -> str:
    if not rule.shows:
        return rule.name
    value = measured[rule.shows][row]
    if isinstance(value, float):
        return f"{rule.name}: {value:.3g}"
    # Of the user's texts nothing may look like another reason, or command a terminal.
    return f"{rule.name}: {repr(value)[1:-1].replace('; ', ', ') if isinstance(value, str) else value}"
