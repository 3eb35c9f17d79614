"""From benchmarks and an encoder to ranks, the same for the pipeline and for any model.

Texts are encoded once, whatever the number of centerings; a corpus with judgements is streamed in shards and never
held. Under `accelerate launch` each process encodes its share of the texts and all rank alike, so the ranks do not
depend on the number of processes.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hexapla.benchmarks import lareqa, miracl
from hexapla.evaluation import ranking
from hexapla.evaluation.ranking import JudgedRanks, TopKSearch
from hexapla.evaluation.results import RankedBenchmark
from hexapla.modeling import centering, embed
from hexapla.modeling.centering import Means
from hexapla.modeling.embedding_cache import EmbeddingCache
from hexapla.modeling.encoder import Encoder, Side
from hexapla.schema import ParallelBenchmark, UserError

DEPTH = 100
"""Passages that a search in a judged corpus returns; Recall@100 needs no more."""

SHARD = 32_768
"""Passages of a judged corpus in memory at a time."""

_log = logging.getLogger(__name__)

Encode = Callable[[Sequence[Any], Side, str], np.ndarray]
"""(texts, side, label of the progress bar) to unit vectors."""

SideMeans = tuple[Means, Means]
"""The means of queries and of passages."""


class LoadedBenchmark(NamedTuple):
    """A benchmark that can be evaluated; of a judged corpus, only topics and judgements are in memory."""

    name: str
    content: ParallelBenchmark | Sequence[miracl.JudgedBenchmark]

    @property
    def languages(self) -> tuple[str, ...]:
        if isinstance(self.content, ParallelBenchmark):
            return self.content.languages
        return tuple(part.lang for part in self.content)


class EvaluationSettings(NamedTuple):
    """Where texts are cut, in tokens; and how the encoder is used."""

    query_tokens: int
    passage_tokens: int
    precision: str
    centerings: Sequence[str]


class Evaluation(NamedTuple):
    """The ranks by benchmark, and what they depend on in addition to the weights."""

    ranked: dict[str, RankedBenchmark]
    settings: dict[str, Any]
    """Lengths, precision, prompts."""


def load_benchmark(
    name: str, folder: Path, languages: Sequence[str] = (), passage_unit: str = "sentence"
) -> LoadedBenchmark:
    """Read a benchmark's folder, in whichever format it is.

    Raises:
        UserError: the folder is no benchmark, lacks a language, or a file in it is broken.
    """
    if lareqa.detect(folder) == "lareqa":
        return LoadedBenchmark(name, lareqa.load(folder, languages, passage_unit=passage_unit))
    if passage_unit != "sentence":
        raise UserError(f"{folder}: passage_unit '{passage_unit}' is for benchmarks in LAReQA format")
    return LoadedBenchmark(
        name, [miracl.load(folder, lang) for lang in languages or miracl.languages(folder)]
    )


def evaluate_encoder(
    encoder: Encoder,
    benchmarks: Sequence[LoadedBenchmark],
    settings: EvaluationSettings,
    *,
    folder: Path | None,
    name: str,
) -> Evaluation:
    """Rank the passages of every benchmark under every centering.

    Args:
        encoder: the model.
        benchmarks: what to rank.
        settings: lengths, precision, centerings.
        folder: the model's, where the centering `trained` finds its means; None when it has none.
        name: for the log.

    Raises:
        UserError: an embedding is not finite, a corpus is smaller than the search is deep, or the model stores no
            means, or none for one of the languages.
    """
    precision = embed.resolve_precision(encoder, settings.precision)
    trained = _load_trained_means(folder, settings)
    embedder = embed.Embedder(encoder, precision=precision, cache=EmbeddingCache())

    def encode(texts: Sequence[Any], side: Side, label: str) -> np.ndarray:
        tokens = settings.query_tokens if side == "query" else settings.passage_tokens
        return embedder.encode(texts, side, tokens, progress=label)

    ranked = {}
    for benchmark in benchmarks:
        _log.info("%s on %s, %s", name, benchmark.name, precision)
        centerings = _choose_centerings(benchmark, settings.centerings, trained)
        if isinstance(benchmark.content, ParallelBenchmark):
            ranks = _rank_parallel(benchmark.name, benchmark.content, encode, centerings, trained)
        else:
            ranks = _rank_judged(benchmark.name, benchmark.content, encode, centerings, trained)
        ranked[benchmark.name] = ranks
    lengths = {"query_tokens": settings.query_tokens, "passage_tokens": settings.passage_tokens}
    prompts = {side: encoder.prompts[side] for side in ("query", "passage")}
    return Evaluation(ranked, {**lengths, "precision": precision, "prompts": prompts})


def _load_trained_means(folder: Path | None, settings: EvaluationSettings) -> SideMeans | None:
    if "trained" not in settings.centerings:
        return None
    if folder is None:
        raise UserError("centering 'trained' needs a model that Hexapla trained; take 'language' instead")
    return centering.load(folder)


def _choose_centerings(
    benchmark: LoadedBenchmark, centerings: Sequence[str], trained: SideMeans | None
) -> list[str]:
    """Leave out `trained` where the model has no mean for one of the benchmark's languages."""
    lacking = [lang for lang in benchmark.languages if trained and not all(lang in side for side in trained)]
    if not lacking:
        return list(centerings)
    missing = ", ".join(lacking)
    _log.warning(
        "%s: the model stores no mean for %s; the centering 'trained' is left out", benchmark.name, missing
    )
    rest = [how for how in centerings if how != "trained"]
    if not rest:
        raise UserError(f"{benchmark.name}: the model stores no mean for {missing}; take another centering")
    return rest


# --- a parallel benchmark ------------------------------------------------------------------------


def _rank_parallel(
    name: str,
    benchmark: ParallelBenchmark,
    encode: Encode,
    centerings: Sequence[str],
    trained: SideMeans | None,
) -> RankedBenchmark:
    queries = encode([query.text for query in benchmark.queries], "query", f"{name}, queries")
    passages = encode(benchmark.texts, "passage", f"{name}, passages")
    query_languages = [query.lang for query in benchmark.queries]
    passage_languages = [passage.lang for passage in benchmark.passages]
    ranks = {}
    for how in centerings:
        sides = queries, passages
        if how != "none":
            pool = centering.fit(queries, query_languages), centering.fit(passages, passage_languages)
            means = trained if how == "trained" and trained else pool
            sides = (
                centering.center(queries, query_languages, means[0]),
                centering.center(passages, passage_languages, means[1]),
            )
        ranks[how] = ranking.rank(benchmark, *sides)
    return RankedBenchmark("lareqa", benchmark.languages, len(queries), len(passages), ranks)


# --- a corpus with judgements --------------------------------------------------------------------


def _rank_judged(
    name: str,
    parts: Sequence[miracl.JudgedBenchmark],
    encode: Encode,
    centerings: Sequence[str],
    trained: SideMeans | None,
) -> RankedBenchmark:
    languages = tuple(part.lang for part in parts)
    topics = [topic.id for part in parts for topic in part.topics]
    query_languages = np.repeat(np.arange(len(parts)), [len(part.topics) for part in parts])
    by_part = []
    size = 0
    for part in parts:
        corpus = _Corpus(f"{name}, {part.lang}", part, encode)
        by_part.append(corpus.rank(centerings, trained))
        size += corpus.ids.count
    ranks = {
        how: JudgedRanks(
            languages,
            np.array(topics),
            query_languages,
            *(_stack(arrays) for arrays in zip(*(part[how] for part in by_part), strict=True)),
        )
        for how in centerings
    }
    return RankedBenchmark("miracl", languages, len(topics), size, ranks)


class _Corpus:
    """One language's corpus: read once in search of mistakes before anything is encoded, then streamed."""

    def __init__(self, label: str, part: miracl.JudgedBenchmark, encode: Encode) -> None:
        self.label, self.part, self.encode = label, part, encode
        self.ids = miracl.survey(part)
        if self.ids.count < DEPTH:
            raise UserError(
                f"{label}: its corpus has {self.ids.count} passages; Recall@{DEPTH} needs at least {DEPTH}"
            )

    def rank(
        self, centerings: Sequence[str], trained: SideMeans | None
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Ranks and grades by centering, int64 [topics, relevant].

        The corpus is encoded once for all centerings, and once more where the pool's own mean is needed, which is
        known only after the first pass. The cache spares the second encoding if the corpus fits into it.
        """
        topics = self.encode([topic.text for topic in self.part.topics], "query", f"{self.label}, topics")
        first_pass: dict[str, SideMeans | None] = {how: None for how in centerings if how == "none"}
        if "trained" in centerings:
            first_pass["trained"] = trained
        positions, total = self._search(topics, first_pass)
        if "language" in centerings:
            lang = self.part.lang
            query_means = centering.fit(topics, [lang] * len(topics))
            pool = query_means, {lang: (total / self.ids.count).astype(np.float32)}
            positions |= self._search(topics, {"language": pool})[0]
        return {how: miracl.ranks(self.part, self.ids, positions[how]) for how in centerings}

    def _search(
        self, topics: np.ndarray, means: Mapping[str, SideMeans | None]
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Search the corpus in one pass under each centering.

        Returns:
            The positions of the hits by centering, int64 [topics, `DEPTH`], and the sum of the passages' embeddings,
            float64 [dim].
        """
        searches = {
            how: TopKSearch(self._center(topics, sides and sides[0]), DEPTH) for how, sides in means.items()
        }
        total = np.zeros(topics.shape[1])
        for shard in self._shards():
            total += shard.sum(axis=0, dtype=np.float64)
            for how, search in searches.items():
                sides = means[how]
                search.add(self._center(shard, sides and sides[1]))
            del shard
        return {how: search.hits().positions for how, search in searches.items()}, total

    def _shards(self) -> Iterator[np.ndarray]:
        parts = -(-self.ids.count // SHARD)
        for number, batch in enumerate(miracl.batches(miracl.passages(self.part), SHARD), 1):
            label = f"{self.label}, passages, part {number} of {parts}"
            yield self.encode([passage.text for passage in batch], "passage", label)

    def _center(self, embeddings: np.ndarray, means: Means | None) -> np.ndarray:
        if means is None:
            return embeddings
        return centering.center(embeddings, [self.part.lang] * len(embeddings), means)


def _stack(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Int64 [topics of all parts, most relevant], padded with 0."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
