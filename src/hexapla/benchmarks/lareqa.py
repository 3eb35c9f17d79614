"""Benchmarks in LAReQA format (Roy et al. 2020, arXiv 2004.05484): XQuAD-R, MLQA-R, the sample.

A folder of `<lang>.json` files: SQuAD's JSON with `sentences` and `sentence_breaks` ([start, end]
offsets into the context) for each paragraph. Every sentence is a passage to rank, equal ones too; the
relevant one holds the start of the answer. The question's id is the key across languages.

What can't be evaluated is refused. Published files have slips, though: in XQuAD-R's Turkish, two of 1,167
sentences are not the text between their breaks. So up to `SLIPS` of a file's sentences, or answers, may
differ from the context; their number is logged.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hexapla.io import cache
from hexapla.schema import BenchmarkPassage, BenchmarkQuery, ParallelBenchmark, UserError
from hexapla.text.languages import base_language, find_scripts, is_known_language

_log = logging.getLogger(__name__)

SLIPS = 0.01
"""The share of a file's sentences, or answers, that may differ from the text at their offsets."""

_MIRACL = re.compile(r"miracl-(corpus-)?v1\.0-[a-z]{2,3}|[a-z]{2,3}-(corpus|queries|qrels)")


def detect(path: Path) -> str:
    """`lareqa` or `miracl`, by what the folder holds.

    Raises:
        UserError: no such folder, or it holds neither or both.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such benchmark folder")
    judged = any(entry.is_dir() and _MIRACL.fullmatch(entry.name) for entry in path.iterdir())
    parallel = any(_names_language(file.stem) for file in path.glob("*.json"))
    if judged and parallel:
        raise UserError(f"{path}: holds <lang>.json files and MIRACL's folders; put one of the two elsewhere")
    if judged or parallel:
        return "miracl" if judged else "lareqa"
    raise UserError(
        f"{path}: no benchmark; looked for <lang>.json (LAReQA format), "
        "and for folders miracl-v1.0-<lang> or <lang>-corpus (MIRACL format)"
    )


def files(path: Path, languages: Sequence[str] = ()) -> dict[str, Path]:
    """The benchmark's files by language, sorted; those of `languages` in their order when given.

    Other files, such as a license or a README, may be in the same folder.

    Raises:
        UserError: the folder or a language is missing, or a JSON file is not named after a language.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such benchmark folder")
    found = {file.stem: file for file in sorted(path.glob("*.json"))}
    for lang, file in found.items():
        if not _names_language(lang):
            raise UserError(
                f"{file}: '{lang}' is no language code, and a benchmark's JSON files are <lang>.json each; "
                "rename it or put it elsewhere"
            )
    if not found:
        raise UserError(f"{path}: holds no <lang>.json files")
    for lang in languages:
        if lang not in found:
            raise UserError(f"{path}: language '{lang}' is missing; it holds {', '.join(found)}")
    return {lang: found[lang] for lang in languages} if languages else found


def _names_language(stem: str) -> bool:
    """Return whether a file's name is the code of a language that is written; `dev`, a language too, is none."""
    code = base_language(stem)
    return bool(find_scripts(code)) or (len(code) == 2 and is_known_language(code))


def load(path: Path, languages: Sequence[str] = (), *, passage_unit: str = "sentence") -> ParallelBenchmark:
    """Read the languages of a folder; all that it has when none are named.

    Args:
        path: the folder.
        languages: which to read, in this order.
        passage_unit: `sentence`, or `sentence_in_context`; see `ParallelBenchmark.texts`.

    Raises:
        UserError: the folder or a language is missing, or a file does not fit the format; the
            message names file and question.
    """
    chosen = files(path, languages)
    questions: list[BenchmarkQuery] = []
    passages: list[BenchmarkPassage] = []
    for lang, file in chosen.items():
        before = len(questions)
        slips = _Slips([], [])
        tree, where = cache.read_json(file), "its articles"
        try:
            for number, paragraph in enumerate(_paragraphs(tree), 1):
                where = f"paragraph {number}"
                _read_paragraph(paragraph, where, lang, questions, passages, slips)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise UserError(f"{file}: {where}: not LAReQA format, {type(error).__name__}: {error}") from None
        except ValueError as error:
            raise UserError(f"{file}: {error}") from None
        if len(questions) == before:
            raise UserError(f"{file}: holds no questions; leave the language out, or fetch the file again")
        _refuse_twins(file, questions[before:])
        _weigh(file, "sentences", slips.sentences, sum(one.lang == lang for one in passages))
        _weigh(file, "answers", slips.answers, len(questions) - before)
    read = ParallelBenchmark(tuple(chosen), questions, passages, passage_unit)
    if len(chosen) > 1 and max(map(len, read.relevant.values())) == 1:
        _log.warning("%s: no question is in two languages, so only monolingual figures make sense", path)
    return read


class _Slips(NamedTuple):
    """Where a text differs from the context at its offsets."""

    sentences: list[str]
    answers: list[str]


def _paragraphs(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [paragraph for article in tree["data"] for paragraph in article["paragraphs"]]


def _read_paragraph(
    paragraph: dict[str, Any],
    where: str,
    lang: str,
    questions: list[BenchmarkQuery],
    passages: list[BenchmarkPassage],
    slips: _Slips,
) -> None:
    context, breaks = paragraph["context"], paragraph["sentence_breaks"]
    if len(breaks) != len(paragraph["sentences"]):
        raise ValueError(
            f"{where}: {len(breaks)} sentence_breaks for {len(paragraph['sentences'])} sentences"
        )
    first, end = len(passages), 0
    for (low, high), text in zip(breaks, paragraph["sentences"], strict=True):
        if not text.strip():
            raise ValueError(f"{where}: a sentence is empty (sentence_breaks {low}, {high})")
        if not end <= low < high <= len(context):
            raise ValueError(
                f"{where}: sentence_breaks {low}, {high} are out of order or beyond the context's "
                f"{len(context)} characters"
            )
        if context[low:high].strip() != text.strip():
            slips.sentences.append(f"{where}: '{_short(text)}' is not the text at {low}, {high}")
        passages.append(BenchmarkPassage(lang, text, context))
        end = high
    questions.extend(_question(qa, context, breaks, lang, first, slips) for qa in paragraph["qas"])


def _question(
    qa: dict[str, Any], context: str, breaks: Sequence[Sequence[int]], lang: str, first: int, slips: _Slips
) -> BenchmarkQuery:
    answer = qa["answers"][0]
    start = answer["answer_start"]
    if not qa["question"].strip():
        raise ValueError(f"question {qa['id']}: its text is empty")
    held = [i for i, (low, high) in enumerate(breaks) if low <= start < high]
    if len(held) != 1:
        raise ValueError(f"question {qa['id']}: answer_start {start} is in {len(held)} sentences, not in 1")
    if not context.startswith(answer["text"], start):
        slips.answers.append(f"question {qa['id']}: '{_short(answer['text'])}' is not at {start}")
    return BenchmarkQuery(str(qa["id"]), lang, qa["question"], first + held[0])


def _weigh(file: Path, what: str, slips: list[str], count: int) -> None:
    if len(slips) > SLIPS * count:
        raise UserError(
            f"{file}: {slips[0]}; so it is for {len(slips)} of {count} {what}. Offsets count the context's "
            "characters (not bytes), from 0"
        )
    if slips:
        _log.warning(
            "%s: %d of %d %s differ from the context, first: %s", file, len(slips), count, what, slips[0]
        )


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


def _refuse_twins(file: Path, questions: Sequence[BenchmarkQuery]) -> None:
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise UserError(f"{file}: question id '{question.id}' occurs twice")
        seen.add(question.id)
