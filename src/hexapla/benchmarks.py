"""Benchmarks in LAReQA format (Roy et al. 2020, arXiv 2004.05484): XQuAD-R, MLQA-R, the sample.

A folder of `<lang>.json` files: SQuAD's JSON with `sentences` and `sentence_breaks` ([start, end]
offsets into the context) for each paragraph. A candidate is a sentence; the relevant one holds the
start of the answer. The question's id is the key across languages.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hexapla import store
from hexapla.records import Mistake


class Question(NamedTuple):
    id: str
    lang: str
    text: str
    candidate: int
    """Position of the relevant sentence of its own paragraph in `Retrieval.candidates`."""


class Candidate(NamedTuple):
    lang: str
    text: str
    context: str


class Retrieval(NamedTuple):
    """A parallel retrieval benchmark: every question and every candidate of all languages.

    The order (language, then file order) is the tie-break between candidates of equal score.
    """

    languages: tuple[str, ...]
    questions: list[Question]
    candidates: list[Candidate]

    @property
    def relevant(self) -> dict[str, list[int]]:
        """Per question id, the relevant candidates in all languages."""
        found: dict[str, list[int]] = {}
        for question in self.questions:
            found.setdefault(question.id, []).append(question.candidate)
        return found


def load(path: Path, languages: Sequence[str] = ()) -> Retrieval:
    """Read the languages of a folder; all that it has when none are named.

    Raises:
        Mistake: the folder or a language is missing, or a file does not fit the format; the
            message names file and question.
    """
    if not path.is_dir():
        raise Mistake(f"{path}: no such benchmark folder")
    names = tuple(languages) or tuple(sorted(file.stem for file in path.glob("*.json")))
    if not names:
        raise Mistake(f"{path}: holds no <lang>.json files")
    questions: list[Question] = []
    candidates: list[Candidate] = []
    for lang in names:
        file = path / f"{lang}.json"
        tree = store.read_json(file)
        try:
            for article in tree["data"]:
                for paragraph in article["paragraphs"]:
                    _read_paragraph(paragraph, lang, questions, candidates)
        except (KeyError, TypeError, IndexError) as error:
            raise Mistake(f"{file}: not LAReQA format, {type(error).__name__}: {error}") from None
        except ValueError as error:
            raise Mistake(f"{file}: {error}") from None
        _refuse_twins(file, lang, questions)
    return Retrieval(names, questions, candidates)


def _read_paragraph(
    paragraph: dict[str, Any], lang: str, questions: list[Question], candidates: list[Candidate]
) -> None:
    first = len(candidates)
    breaks = paragraph["sentence_breaks"]
    if len(breaks) != len(paragraph["sentences"]):
        raise ValueError(f"{len(breaks)} sentence_breaks for {len(paragraph['sentences'])} sentences")
    candidates.extend(Candidate(lang, text, paragraph["context"]) for text in paragraph["sentences"])
    for qa in paragraph["qas"]:
        start = qa["answers"][0]["answer_start"]
        held = [i for i, (low, high) in enumerate(breaks) if low <= start < high]
        if len(held) != 1:
            raise ValueError(
                f"question {qa['id']}: answer_start {start} lies in {len(held)} sentences, not 1"
            )
        questions.append(Question(str(qa["id"]), lang, qa["question"], first + held[0]))


def _refuse_twins(file: Path, lang: str, questions: list[Question]) -> None:
    seen: set[str] = set()
    for question in questions:
        if question.lang == lang:
            if question.id in seen:
                raise Mistake(f"{file}: question id '{question.id}' stands twice")
            seen.add(question.id)
