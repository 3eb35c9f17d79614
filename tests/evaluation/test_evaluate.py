import json
from typing import ClassVar

import numpy as np
import pytest

from hexapla.evaluation import evaluate, results
from hexapla.modeling import centering, embed
from hexapla.schema import UserError
from stand_ins import WORDS, miracl


def paragraph(lang, word, i):
    text = f"{lang} {word}"
    return {
        "context": text,
        "sentences": [text],
        "sentence_breaks": [[0, len(text)]],
        "qas": [
            {"id": f"q{i}", "question": text, "answers": [{"text": word, "answer_start": len(lang) + 1}]}
        ],
    }


def lareqa(folder, languages=("de", "en", "zh")):
    folder.mkdir()
    for lang in languages:
        paragraphs = [paragraph(lang, word, i) for i, word in enumerate(WORDS)]
        (folder / f"{lang}.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return folder


def words(texts, *, accent=2.0, dim=64):
    """A made-up encoder: a direction for each word and, stronger, one for each language."""

    def direction(text):
        return np.random.default_rng(list(text.encode())).normal(size=dim)

    vectors = np.array(
        [accent * direction(lang) + direction(word) for lang, word in (t.split() for t in texts)]
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class Fake:
    """Stands for an encoder; `asked` tells what it had to encode."""

    prompts: ClassVar = {"query": "", "passage": "text: ", "other": "x"}

    def __init__(self):
        self.asked = []


@pytest.fixture
def fake(monkeypatch):
    class FakeEmbedder:
        def __init__(self, encoder, **_):
            self.encoder = encoder

        def encode(self, texts, side, tokens, **_):
            self.encoder.asked.append((side, tokens, len(texts)))
            return words(texts)

    monkeypatch.setattr(embed, "Embedder", FakeEmbedder)
    monkeypatch.setattr(embed, "resolve_precision", lambda encoder, wanted: "fp32")
    return Fake()


def settings(*centerings):
    return evaluate.EvaluationSettings(16, 32, "auto", centerings)


def test_a_parallel_benchmark_is_encoded_once_for_all_centerings(fake, tmp_path):
    task = evaluate.load_benchmark("words", lareqa(tmp_path / "b"))
    found = evaluate.evaluate_encoder(fake, [task], settings("none", "language"), folder=None, name="m")
    assert fake.asked == [("query", 16, 18), ("passage", 32, 18)]
    prompts = {"query": "", "passage": "text: "}
    assert found.settings == {
        "query_tokens": 16, "passage_tokens": 32, "precision": "fp32", "prompts": prompts
    }  # fmt: skip
    result = results.build_result({}, found.ranked)
    plain, centered = (result.scores["words"][how] for how in ("none", "language"))
    assert plain["map_mono"] == centered["map_mono"] == 1
    assert plain["own_language_top10"] > centered["own_language_top10"]
    assert centered["map_multi"] == 1 > plain["map_multi"], "the language was all that was in the way"
    assert centered["rank_distance"] == 2


def test_means_of_the_training_data_are_taken_from_the_model(fake, tmp_path):
    task = evaluate.load_benchmark("words", lareqa(tmp_path / "b"))
    texts = [f"{lang} other{i}" for lang in ("de", "en", "zh") for i in range(200)]
    means = centering.fit(words(texts), [text.split()[0] for text in texts])
    centering.save(tmp_path, means, means)
    found = evaluate.evaluate_encoder(fake, [task], settings("none", "trained"), folder=tmp_path, name="m")
    scores = results.build_result({}, found.ranked).scores["words"]
    assert scores["trained"]["map_multi"] > scores["none"]["map_multi"]


def test_a_language_that_training_lacked_is_not_centered_by_its_means(fake, tmp_path, caplog):
    means = {"de": np.zeros(64, np.float32)}
    centering.save(tmp_path, means, means)
    task = evaluate.load_benchmark("words", lareqa(tmp_path / "b"))
    found = evaluate.evaluate_encoder(fake, [task], settings("none", "trained"), folder=tmp_path, name="m")
    assert list(found.ranked["words"].ranks) == ["none"]
    assert "words: the model stores no mean for en, zh" in caplog.text
    with pytest.raises(UserError, match="the model stores no mean for en, zh; take another centering"):
        evaluate.evaluate_encoder(fake, [task], settings("trained"), folder=tmp_path, name="m")
    with pytest.raises(UserError, match="needs a model that Hexapla trained"):
        evaluate.evaluate_encoder(fake, [task], settings("trained"), folder=None, name="m")


@pytest.mark.parametrize("shard", [7, 1000])
def test_a_judged_corpus_is_streamed_in_shards(fake, tmp_path, monkeypatch, shard):
    monkeypatch.setattr(evaluate, "SHARD", shard)
    folder = miracl(miracl(tmp_path / "b"), "sw")
    task = evaluate.load_benchmark("judged", folder)
    found = evaluate.evaluate_encoder(fake, [task], settings("none", "language"), folder=None, name="m")
    judgement = found.ranked["judged"]
    assert (judgement.format, judgement.languages, judgement.queries) == ("miracl", ("sw", "yo"), 12)
    assert judgement.passages == 300
    assert results.build_result({}, found.ranked).scores["judged"]["none"] == {"ndcg10": 1.0, "r100": 1.0}
    assert max(size for side, _, size in fake.asked if side == "passage") <= shard


def test_a_corpus_smaller_than_the_search_is_deep_is_refused(fake, tmp_path):
    task = evaluate.load_benchmark("judged", miracl(tmp_path / "b", size=40))
    with pytest.raises(UserError, match="40") as caught:
        evaluate.evaluate_encoder(fake, [task], settings("none"), folder=None, name="m")
    assert "100" in str(caught.value)


def test_a_folder_that_is_no_benchmark_and_a_choice_that_does_not_fit(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        evaluate.load_benchmark("x", tmp_path / "empty")
    with pytest.raises(UserError, match="sentence_in_context' is for benchmarks in LAReQA format"):
        evaluate.load_benchmark("x", miracl(tmp_path / "m"), (), "sentence_in_context")
    with pytest.raises(UserError, match="'fr'"):
        evaluate.load_benchmark("x", tmp_path / "m", ("fr",))
