from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla import samplers
from hexapla.records import Mistake
from hexapla.samplers import CROSSLINGUAL, MONOLINGUAL, Plan


def table(ids, languages, per_passage=1, missing=()):
    rows = [(f"q{i}", lang, f"p{i // per_passage}") for i in range(ids) for lang in languages]
    return samplers.index(*zip(*[row for row in rows if row[:2] not in missing], strict=True))


def plan(index, sampler="hybrid", batch_size=4, seed=0, alpha=0.5):
    return Plan(index, sampler=sampler, batch_size=batch_size, seed=seed, alpha=alpha)


def same(one, other):
    return one.kind == other.kind and all(map(np.array_equal, one[1:], other[1:]))


@st.composite
def ragged(draw):
    """Tables where ids share passages and lack languages, but a batch can be filled."""
    ids = draw(st.integers(16, 60))
    languages = "abcde"[: draw(st.integers(2, 5))]
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    missing = {(f"q{i}", lang) for i in range(12, ids) for lang in languages if rng.random() < 0.4}
    full = {f"q{i}" for i in range(12)}
    missing = {m for m in missing if m[0] not in full}
    keep = {(f"q{i}", languages[0]) for i in range(ids)}
    return table(ids, languages, draw(st.integers(1, 2)), missing - keep)


@given(
    ragged(),
    st.sampled_from(["hybrid", "monolingual", "crosslingual"]),
    st.integers(0, 99),
    st.integers(0, 60),
)
def test_every_batch_keeps_its_promises(index, sampler, seed, step):
    batch = plan(index, sampler, seed=seed).at(step)
    assert len(batch.items) == 4
    assert len(set(batch.items)) == 4
    assert len(set(index.passages[batch.items])) == 4
    for languages in (batch.question_languages, batch.passage_languages):
        assert (index.rows[batch.items, languages] >= 0).all()
    if batch.kind == MONOLINGUAL:
        assert len({*batch.question_languages, *batch.passage_languages}) == 1
    else:
        assert (batch.question_languages != batch.passage_languages).all()


@given(ragged(), st.integers(0, 99), st.integers(0, 30))
def test_alpha_one_is_monolingual_and_alpha_zero_crosslingual(index, seed, step):
    assert same(plan(index, alpha=1, seed=seed).at(step), plan(index, "monolingual", seed=seed).at(step))
    assert same(plan(index, alpha=0, seed=seed).at(step), plan(index, "crosslingual", seed=seed).at(step))


def test_a_step_depends_on_nothing_that_went_before():
    index = table(40, "abc")
    walked = plan(index)
    batches = [walked.at(step) for step in range(30)]
    assert all(same(plan(index).at(step), batches[step]) for step in reversed(range(30)))
    assert not all(same(plan(index, seed=1).at(step), batches[step]) for step in range(30))


@pytest.mark.parametrize("per_passage", [1, 3])
def test_an_epoch_holds_every_id_once(per_passage):
    index = table(48, "abc", per_passage)
    for epoch in range(3):
        walked = plan(index, seed=epoch)
        seen = [item for step in range(len(walked)) for item in walked(epoch, step).items]
        assert sorted(seen) == list(range(48))


def test_kinds_and_languages_come_as_often_as_stated():
    index = table(64, "abcd")
    walked = plan(index, alpha=0.3, batch_size=8)
    batches = [walked.at(step) for step in range(2000)]
    kinds = Counter(batch.kind for batch in batches)
    assert kinds[MONOLINGUAL] / 2000 == pytest.approx(0.3, abs=0.04)
    alone = Counter(b.question_languages[0] for b in batches if b.kind == MONOLINGUAL)
    assert all(count / kinds[MONOLINGUAL] == pytest.approx(1 / 4, abs=0.07) for count in alone.values())
    pairs = Counter(
        pair
        for b in batches
        if b.kind == CROSSLINGUAL
        for pair in zip(b.question_languages, b.passage_languages, strict=True)
    )
    assert len(pairs) == 12
    assert all(count / pairs.total() == pytest.approx(1 / 12, abs=0.01) for count in pairs.values())


def test_an_index_knows_the_rows_of_its_table():
    index = samplers.index(["b", "a", "b"], ["de", "de", "en"], ["p", "q", "p"])
    assert index.languages == ("de", "en")
    assert index.rows.tolist() == [[1, -1], [0, 2]]
    assert index.passages[0] != index.passages[1]


def test_data_that_cannot_fill_a_batch_are_refused():
    with pytest.raises(Mistake, match="id 'a' stands twice in language 'de'"):
        samplers.index(["a", "a"], ["de", "de"], ["p", "p"])
    with pytest.raises(Mistake, match="finds only 3 different passages"):
        plan(table(6, "ab", per_passage=2))
    alone = samplers.index([f"q{i}" for i in range(9)], ["en"] * 9, [f"p{i}" for i in range(9)])
    assert plan(alone, "monolingual").at(0).kind == MONOLINGUAL
    with pytest.raises(Mistake, match="sampler 'crosslingual' finds only 0"):
        plan(alone, "crosslingual")
