import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hexapla.evaluation.metrics import average_precision
from hexapla.schema import UserError
from hexapla.training import early_stopping, loss
from hexapla.training.samplers import PairIndex

LANGUAGES = ("de", "en", "zh")


@st.composite
def indices(draw):
    """Ids that lack languages, and share passages."""
    count = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    has = rng.random((count, len(LANGUAGES))) < draw(st.floats(0.2, 1.0))
    rows = np.where(has, np.cumsum(has).reshape(has.shape) - 1, -1).astype(np.int32)
    passages = rng.integers(0, max(1, count // draw(st.integers(1, 4))), count).astype(np.int32)
    return PairIndex(LANGUAGES, rows, passages, rng.integers(0, 2, count).astype(np.int16), ("a", "b"))


def _usable(index):
    """Different passages that stand in two languages or more."""
    return len({int(p) for row, p in zip(index.rows, index.passages, strict=True) if (row >= 0).sum() >= 2})


def _texts(column, rows):
    return [f"{column} {row}" for row in rows]


def _vectors(count, seed, dim=6):
    drawn = np.random.default_rng(seed).normal(size=(count, dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@given(indices(), st.integers(0, 2**32), st.data())
def test_training_sees_nothing_of_what_is_held_out(index, seed, data):
    size = data.draw(st.integers(0, _usable(index)))
    parts = early_stopping.split(index, size, seed)
    held, left = parts
    trains = early_stopping.drop_held_out(index, parts)
    assert len(held) == len(set(held.tolist())) == size
    assert len(set(index.passages[held].tolist())) == size, "no passage twice in the pool"
    assert ((index.rows[held] >= 0).sum(axis=1) >= 2).all()
    assert not set(trains.passages.tolist()) & set(index.passages[held].tolist())
    # And nothing is lost that need not be.
    assert len(held) + len(left) + len(trains.passages) == len(index.passages)
    assert set(index.passages[left].tolist()) <= set(index.passages[held].tolist())
    again = early_stopping.split(index, size, seed)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))


@given(indices(), st.data())
def test_what_trains_keeps_its_rows_and_order(index, data):
    gone = data.draw(st.sets(st.integers(0, len(index.passages) - 1)))
    parts = early_stopping.Split(
        np.array(sorted(gone)[:2], dtype=np.int64), np.array(sorted(gone)[2:], dtype=np.int64)
    )
    trains = early_stopping.drop_held_out(index, parts)
    kept = [i for i in range(len(index.passages)) if i not in gone]
    np.testing.assert_array_equal(trains.rows, index.rows[kept].reshape(-1, len(LANGUAGES)))
    np.testing.assert_array_equal(trains.passages, index.passages[kept])
    np.testing.assert_array_equal(trains.sources, index.sources[kept])
    assert trains.languages == index.languages


def test_every_id_is_as_likely_to_be_held_out():
    rows = np.arange(60, dtype=np.int32).reshape(20, 3)
    index = PairIndex(LANGUAGES, rows, np.arange(20), np.zeros(20, np.int16), ("a",))
    counts = np.bincount(np.concatenate([early_stopping.split(index, 5, seed)[0] for seed in range(2000)]))
    # 500 expected; the standard deviation is below 20.
    assert (np.abs(counts - 500) < 100).all()


def test_more_than_there_is_is_a_mistake():
    rows = np.array([[0, 1, -1], [2, 3, -1], [4, -1, -1]])
    index = PairIndex(LANGUAGES, rows, np.array([0, 0, 1]), np.zeros(3, np.int16), ("a",))
    assert [positions.tolist() for positions in early_stopping.split(index, 1, 3)] in ([[0], [1]], [[1], [0]])
    with pytest.raises(UserError, match=r"train\.holdout: 2, but only 1 different passages"):
        early_stopping.split(index, 2, 3)


def _benchmark(index, seed=0):
    held, _ = early_stopping.split(index, _usable(index), seed)
    return held, early_stopping.build_benchmark(index, held, _texts)


@given(indices())
def test_the_benchmark_holds_each_text_of_the_held_ids_once(index):
    held, made = _benchmark(index)
    rows = index.rows[held][index.rows[held] >= 0].tolist()
    assert sorted(q.text for q in made.queries) == sorted(f"question {row}" for row in rows)
    assert sorted(made.texts) == sorted(f"passage {row}" for row in rows)
    for question in made.queries:
        candidate = made.passages[question.passage]
        assert candidate.lang == question.lang
        assert candidate.text.split()[1] == question.text.split()[1]
        column = LANGUAGES.index(question.lang)
        assert index.rows[int(question.id), column] == int(question.text.split()[1])


@given(indices().filter(lambda index: _usable(index) > 0), st.integers(0, 2**32))
def test_map_is_that_of_sorting_the_pool(index, seed):
    _, made = _benchmark(index)
    questions, passages = _vectors(len(made.queries), seed), _vectors(len(made.passages), seed + 1)
    owner = {q.passage: q.id for q in made.queries}
    precisions = {}
    for vector, question in zip(questions, made.queries, strict=True):
        order = np.argsort(-(passages @ vector), kind="stable")
        ranks = [rank for rank, at in enumerate(order, 1) if owner[at] == question.id]
        precisions.setdefault(question.lang, []).append(average_precision(np.array([ranks]))[0])
    expected = np.mean([np.mean(each) for each in precisions.values()])
    assert early_stopping.multilingual_map(made, questions, passages) == pytest.approx(expected, abs=1e-5)


@given(
    indices().filter(lambda index: _usable(index) > 0), st.integers(0, 2**32), st.sampled_from([0.02, 1.0])
)
def test_loss_is_trainings_with_every_translation_as_the_own_one(index, seed, temperature):
    _, made = _benchmark(index)
    questions, passages = _vectors(len(made.queries), seed), _vectors(len(made.passages), seed + 1)
    owner = {q.passage: int(q.id) for q in made.queries}
    owners = torch.tensor([owner[at] for at in range(len(passages))])
    each = {}
    for vector, question in zip(questions, made.queries, strict=True):
        mine = [at for at, id_ in owner.items() if id_ == int(question.id)]
        values = [
            loss.info_nce(
                torch.from_numpy(vector[None].astype(np.float64)),
                torch.from_numpy(passages.astype(np.float64)),
                torch.tensor([int(question.id)]), owners, torch.tensor([at]), temperature=temperature,
            )
            for at in mine
        ]  # fmt: skip
        each.setdefault(question.lang, []).append(np.mean(values))
    expected = np.mean([np.mean(values) for values in each.values()])
    found = early_stopping.multilingual_loss(made, questions, passages, temperature)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_loss_does_not_depend_on_its_blocks(monkeypatch):
    rows = np.arange(60, dtype=np.int32).reshape(20, 3)
    index = PairIndex(LANGUAGES, rows, np.arange(20), np.zeros(20, np.int16), ("a",))
    _, made = _benchmark(index)
    vectors = _vectors(60, 1), _vectors(60, 2)
    whole = early_stopping.multilingual_loss(made, *vectors, 0.05)
    monkeypatch.setattr(early_stopping, "_BYTES", 8 * 60 * 7)
    assert early_stopping.multilingual_loss(made, *vectors, 0.05) == pytest.approx(whole, rel=1e-12)


def test_perfect_vectors_are_perfect():
    rows = np.arange(12, dtype=np.int32).reshape(4, 3)
    index = PairIndex(LANGUAGES, rows, np.arange(4), np.zeros(4, np.int16), ("a",))
    _, made = _benchmark(index)
    vectors = np.tile(np.eye(4, dtype=np.float32), (3, 1))
    assert early_stopping.multilingual_map(made, vectors, vectors) == 1
    assert early_stopping.multilingual_loss(made, vectors, vectors, 0.02) == pytest.approx(0, abs=1e-12)


@given(st.lists(st.integers(0, 4).map(float) | st.just(float("nan")), max_size=12), st.integers(1, 4))
def test_stopping_is_what_a_counter_does(scores, patience):
    """The usual loop with a counter, next to the pure functions."""
    high, since, first, stopped = -np.inf, 0, 0, []
    for position, score in enumerate(scores):
        if score > high or position == 0:
            high, since, first = score if score == score else -np.inf, 0, position
        else:
            since += 1
        stopped.append(since >= patience)
        assert early_stopping.find_best(scores[: position + 1]) == first
        assert early_stopping.should_stop(scores[: position + 1], patience) == stopped[-1]
    assert not early_stopping.should_stop([], patience)
