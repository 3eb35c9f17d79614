"""One evaluation: benchmarks and an encoder to ranks, the same for the pipeline and for any model.

Texts are encoded once, whatever the number of centerings; a corpus with judgements is streamed in
shards and never held. Under `accelerate launch` each process encodes its share of the texts and all
rank alike, so the figures do not depend on the number of processes.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hexapla.benchmarks import lareqa, miracl
from hexapla.evaluation import ranking, search
from hexapla.evaluation.per_query import Found
from hexapla.evaluation.results import Judgement
from hexapla.modeling import centering, embed, embedding_cache
from hexapla.modeling.centering import Means
from hexapla.modeling.encoder import Encoder, Side
from hexapla.schema import ParallelBenchmark, UserError

DEPTH = 100
"""Passages that a search in a judged corpus returns; Recall@100 needs no more."""

SHARD = 32_768
"""Passages of a judged corpus in memory at a time."""

_log = logging.getLogger(__name__)

Encode = Callable[..., np.ndarray]
"""(texts, side, label) to unit vectors."""


class Task(NamedTuple):
    """A benchmark that was read and can be judged; of a judged corpus only topics and judgements."""

    name: str
    content: ParallelBenchmark | Sequence[miracl.Judged]


class Settings(NamedTuple):
    query_tokens: int
    passage_tokens: int
    precision: str
    centerings: Sequence[str]


class Evaluation(NamedTuple):
    judged: dict[str, Judgement]
    settings: dict[str, Any]
    """What the figures depend on in addition to the weights: lengths, precision, prompts."""


def task(name: str, folder: Path, languages: Sequence[str] = (), passage_unit: str = "sentence") -> Task:
    """Read a benchmark's folder, in whichever format it is.

    Raises:
        UserError: the folder is no benchmark, lacks a language, or a file in it is broken.
    """
    if lareqa.detect(folder) == "lareqa":
        return Task(name, lareqa.load(folder, languages, passage_unit=passage_unit))
    if passage_unit != "sentence":
        raise UserError(f"{folder}: passage_unit '{passage_unit}' is for benchmarks in LAReQA format")
    return Task(name, [miracl.load(folder, lang) for lang in languages or miracl.languages(folder)])


def judge(
    encoder: Encoder, tasks: Sequence[Task], settings: Settings, *, folder: Path | None, name: str
) -> Evaluation:
    """Judge an encoder.

    Args:
        encoder: the model.
        tasks: the benchmarks.
        settings: lengths, precision, centerings.
        folder: the model's, where the centering `trained` finds its means; None when it has none.
        name: for the log.

    Raises:
        UserError: a vector is not finite, a corpus is smaller than the search is deep, or the model
            stores no means, or none for one of the languages.
    """
    precision = embed.resolve_precision(encoder, settings.precision)
    trained = _trained(folder, settings)
    embedder = embed.Embedder(encoder, precision=precision, cache=embedding_cache.EmbeddingCache())

    def encode(texts: Sequence[Any], side: Side, label: str) -> np.ndarray:
        tokens = settings.query_tokens if side == "query" else settings.passage_tokens
        return embedder.encode(texts, side, tokens, progress=label)

    judged = {}
    for each in tasks:
        _log.info("%s on %s, %s", name, each.name, precision)
        centerings = _possible(each, settings.centerings, trained)
        if isinstance(each.content, ParallelBenchmark):
            judged[each.name] = _parallel(each.name, each.content, encode, centerings, trained)
        else:
            judged[each.name] = _judged(each.name, each.content, encode, centerings, trained)
    lengths = {"query_tokens": settings.query_tokens, "passage_tokens": settings.passage_tokens}
    prompts = {side: encoder.prompts[side] for side in ("query", "passage")}
    return Evaluation(judged, {**lengths, "precision": precision, "prompts": prompts})


def _trained(folder: Path | None, settings: Settings) -> tuple[Means, Means] | None:
    if "trained" not in settings.centerings:
        return None
    if folder is None:
        raise UserError("centering 'trained' wants a model that `hexapla` trained; take 'language' instead")
    return centering.load(folder)


def _possible(each: Task, centerings: Sequence[str], trained: tuple[Means, Means] | None) -> list[str]:
    """Without `trained` where the model has no mean for one of the benchmark's languages."""
    content = each.content
    languages = (
        content.languages if isinstance(content, ParallelBenchmark) else [part.lang for part in content]
    )
    lacking = [lang for lang in languages if trained and not all(lang in side for side in trained)]
    if not lacking:
        return list(centerings)
    _log.warning(
        "%s: the model stores no mean for %s; not centered by training's means", each.name, ", ".join(lacking)
    )
    rest = [how for how in centerings if how != "trained"]
    if not rest:
        raise UserError(
            f"{each.name}: the model stores no mean for {', '.join(lacking)}; take another centering"
        )
    return rest


# --- a parallel benchmark ------------------------------------------------------------------------


def _parallel(
    name: str,
    benchmark: ParallelBenchmark,
    encode: Encode,
    centerings: Sequence[str],
    trained: tuple[Means, Means] | None,
) -> Judgement:
    questions = encode([q.text for q in benchmark.queries], "query", f"{name}, questions")
    candidates = encode(benchmark.texts, "passage", f"{name}, passages")
    asked = [question.lang for question in benchmark.queries]
    held = [candidate.lang for candidate in benchmark.passages]
    ranks = {}
    for how in centerings:
        sides = questions, candidates
        if how != "none":
            pool = centering.fit(questions, asked), centering.fit(candidates, held)
            means = trained if how == "trained" and trained else pool
            sides = (
                centering.center(questions, asked, means[0]),
                centering.center(candidates, held, means[1]),
            )
        ranks[how] = ranking.rank(benchmark, *sides)
    return Judgement("lareqa", benchmark.languages, len(questions), len(candidates), ranks)


# --- a corpus with judgements --------------------------------------------------------------------


def _judged(
    name: str,
    parts: Sequence[miracl.Judged],
    encode: Encode,
    centerings: Sequence[str],
    trained: tuple[Means, Means] | None,
) -> Judgement:
    languages = tuple(part.lang for part in parts)
    topics = [topic.id for part in parts for topic in part.topics]
    asked = np.repeat(np.arange(len(parts)), [len(part.topics) for part in parts])
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {how: [] for how in centerings}
    size = 0
    for part in parts:
        corpus = _Corpus(f"{name}, {part.lang}", part, encode)
        for how in centerings:
            found[how].append(corpus.ranks(how, trained))
        size += corpus.ids.count
    ranks = {
        how: Found(
            languages, np.array(topics), asked, *(_stacked(arrays) for arrays in zip(*each, strict=True))
        )
        for how, each in found.items()
    }
    return Judgement("miracl", languages, len(topics), size, ranks)


class _Corpus:
    """One language's corpus: looked through before anything is encoded, streamed once a centering."""

    def __init__(self, label: str, part: miracl.Judged, encode: Encode) -> None:
        self.label, self.part, self.encode = label, part, encode
        self.ids = miracl.survey(part)
        if self.ids.count < DEPTH:
            raise UserError(
                f"{label}: its corpus has {self.ids.count} passages; Recall@{DEPTH} wants at least {DEPTH}"
            )
        self.topics = encode([topic.text for topic in part.topics], "query", f"{label}, topics")
        self._sum: np.ndarray | None = None

    def ranks(self, how: str, trained: tuple[Means, Means] | None) -> tuple[np.ndarray, np.ndarray]:
        """Ranks and grades, int64 [topics, relevant]."""
        means = self._means(how, trained)
        hits = search.top_k(self._centered(self.topics, means[0]), self._shards(means[1]), DEPTH)
        return miracl.ranks(self.part, self.ids, hits.positions)

    def _means(self, how: str, trained: tuple[Means, Means] | None) -> tuple[Means | None, Means | None]:
        if how == "none":
            return None, None
        if how == "trained":
            assert trained
            return trained
        if self._sum is None:
            for _ in self._shards(None):
                pass
        assert self._sum is not None
        lang = self.part.lang
        mean = (self._sum / self.ids.count).astype(np.float32)
        return centering.fit(self.topics, [lang] * len(self.topics)), {lang: mean}

    def _centered(self, encoded: np.ndarray, means: Means | None) -> np.ndarray:
        return encoded if means is None else centering.center(encoded, [self.part.lang] * len(encoded), means)

    def _shards(self, means: Means | None) -> Iterator[np.ndarray]:
        """The corpus' vectors; encoded the first time through, when their sum is kept, cached after."""
        total = np.zeros(self.topics.shape[1])
        for number, batch in enumerate(miracl.batches(miracl.passages(self.part), SHARD), 1):
            label = f"{self.label}, passages, part {number} of {-(-self.ids.count // SHARD)}"
            encoded = self.encode([passage.text for passage in batch], "passage", label)
            total += encoded.sum(axis=0, dtype=np.float64)
            yield self._centered(encoded, means)
        self._sum = total


def _stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Int64 [topics of all parts, most relevant], padded with 0."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
