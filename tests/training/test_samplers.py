import math
from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.schema import UserError
from hexapla.training import samplers
from hexapla.training.samplers import CROSSLINGUAL, MIXED, MONOLINGUAL, PARALLEL, BatchPlan, CodedColumn

KINDS = [
    {"sampler": "hybrid"},
    {"sampler": "hybrid", "mixing": "example", "alpha": 0.3},
    {"sampler": "hybrid", "mixing": "example", "alpha": 1.0},
    {"sampler": "monolingual"},
    {"sampler": "crosslingual"},
    {"sampler": "parallel", "languages_per_id": 2},
]


def codes(texts):
    names = list(dict.fromkeys(texts))
    return CodedColumn(np.array([names.index(text) for text in texts], np.int32), names)


def indexed(rows):
    """The index of rows (id, language, passage, source)."""
    return samplers.build_index(*map(codes, zip(*rows, strict=True)))


def table(ids, languages, per_passage=1, missing=(), source=lambda _: "one"):
    return indexed(
        [
            (f"q{i}", lang, f"p{i // per_passage}", source(i))
            for i in range(ids)
            for lang in languages
            if (i, lang) not in missing
        ]
    )


def plan(index, sampler="hybrid", batch_size=4, seed=0, **more):
    return BatchPlan(index, sampler=sampler, batch_size=batch_size, seed=seed, **more)


def same(one, other):
    return one.kind == other.kind and all(map(np.array_equal, one[1:], other[1:]))


def epochs(plan, count=1):
    return [plan(epoch, step) for epoch in range(count) for step in range(len(plan))]


@st.composite
def ragged(draw):
    """Ids share passages and lack languages, one source is English only, yet a batch can be filled."""
    ids = draw(st.integers(24, 60))
    languages = ["de", "en", "fr", "zh", "ar"][: draw(st.integers(2, 5))]
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    english = ids - draw(st.integers(0, 10))
    missing = {(i, lang) for i in range(english, ids) for lang in languages if lang != "en"}
    missing |= {(i, lang) for i in range(12, english) for lang in languages[:1] if rng.random() < 0.4}
    return table(
        ids, languages, draw(st.integers(1, 3)), missing, lambda i: "en only" if i >= english else "all"
    )


@given(
    ragged(), st.sampled_from(KINDS), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 99), st.integers(0, 60)
)
def test_every_batch_keeps_its_promises(index, kind, exponent, seed, step):
    batch = plan(index, seed=seed, exponent=exponent, **kind).at(step)
    per_id = 2 if kind["sampler"] == "parallel" else 1
    assert [len(column) for column in batch[1:]] == [4, 4, 4]
    assert len(set(batch.items)) == len(set(index.passages[batch.items])) == 4 // per_id
    question, passage = batch.query_languages, batch.passage_languages
    for languages in (question, passage):
        assert (index.rows[batch.items, languages] >= 0).all()
    if batch.kind == MONOLINGUAL:
        assert len({*question, *passage}) == 1
    elif batch.kind == CROSSLINGUAL:
        assert (question != passage).all()
    elif batch.kind == PARALLEL:
        assert (question == passage).all()
        assert (batch.items[::2] == batch.items[1::2]).all()
        assert (question[::2] != question[1::2]).all()
    else:
        assert batch.kind == MIXED
        assert kind["alpha"] < 1 or (question == passage).all()


@given(ragged(), st.integers(0, 99), st.integers(0, 30), st.sampled_from(["batch", "example"]))
def test_alpha_one_is_monolingual_and_alpha_zero_crosslingual(index, seed, step, mixing):
    assert same(plan(index, alpha=1, seed=seed).at(step), plan(index, "monolingual", seed=seed).at(step))
    zero = plan(index, alpha=0, mixing=mixing, seed=seed).at(step)
    assert same(zero, plan(index, "crosslingual", seed=seed).at(step))


@given(st.sampled_from(KINDS), st.sampled_from([0.5, 1.0]), st.randoms())
def test_a_step_depends_on_nothing_that_went_before(kind, exponent, random):
    index = table(40, "abc", 2, source=lambda i: str(i < 11))
    batches = epochs(plan(index, exponent=exponent, **kind), 3)
    order = list(range(len(batches)))
    random.shuffle(order)
    jumped = plan(index, exponent=exponent, **kind)
    assert all(same(jumped.at(step), batches[step]) for step in order)
    last = len(batches) - 1
    assert same(plan(index, exponent=exponent, **kind).at(last), batches[last])
    other = epochs(plan(index, exponent=exponent, seed=1, **kind), 3)
    assert not all(map(same, batches, other))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_passage", [1, 3])
def test_an_epoch_holds_every_id_once(kind, per_passage):
    index = table(48, "abc", per_passage, source=lambda i: str(i % 3))
    per_id = 2 if kind["sampler"] == "parallel" else 1
    walked = plan(index, seed=per_passage, **kind)
    assert len(walked) == 48 * per_id // 4
    for epoch in range(3):
        seen = [item for step in range(len(walked)) for item in walked(epoch, step).items]
        assert sorted(seen) == sorted(list(range(48)) * per_id)


@given(ragged(), st.sampled_from(KINDS), st.integers(0, 60), st.sampled_from([1, 2, 3, 4, 8]))
def test_the_parts_of_all_processes_are_the_global_batch(index, kind, step, processes):
    size = 8 if kind["sampler"] == "parallel" else 4
    batch = plan(index, batch_size=size, **kind).at(step)
    if len(batch.items) % processes:
        with pytest.raises(
            UserError, match=f"train.batch_size: {size} can't be divided among {processes} processes"
        ):
            batch.slice_for(0, processes)
        return
    parts = [batch.slice_for(process, processes) for process in range(processes)]
    assert {part.kind for part in parts} == {batch.kind}
    assert {len(part.items) for part in parts} == {len(batch.items) // processes}
    for column in range(1, 4):
        assert np.array_equal(np.concatenate([part[column] for part in parts]), batch[column])


def shares(counter):
    return {key: count / counter.total() for key, count in counter.items()}


def pairs_of(batches):
    return Counter(pair for b in batches for pair in zip(b.query_languages, b.passage_languages, strict=True))


def test_kinds_and_languages_come_as_often_as_stated():
    walked = plan(table(64, "abcd"), alpha=0.3, batch_size=8)
    batches = [walked.at(step) for step in range(2000)]
    alone = [b for b in batches if b.kind == MONOLINGUAL]
    assert len(alone) / 2000 == pytest.approx(0.3, abs=0.04)
    expected = dict.fromkeys(range(4), pytest.approx(1 / 4, abs=0.07))
    assert shares(Counter(b.query_languages[0] for b in alone)) == expected
    across = shares(pairs_of(b for b in batches if b.kind == CROSSLINGUAL))
    assert len(across) == 12
    assert all(share == pytest.approx(1 / 12, abs=0.01) for share in across.values())


def test_mixing_by_example_draws_the_kind_of_each_pair():
    walked = plan(table(64, "abc"), alpha=0.3, mixing="example", batch_size=8)
    batches = [walked.at(step) for step in range(1000)]
    assert {b.kind for b in batches} == {MIXED}
    drawn = shares(pairs_of(batches))
    for question in range(3):
        for passage in range(3):
            expected = 0.3 / 3 if question == passage else 0.7 / 6
            assert drawn[question, passage] == pytest.approx(expected, abs=0.015)
    inside = Counter((b.query_languages == b.passage_languages).sum() for b in batches)
    assert len(inside) > 4, "the kinds of a batch's pairs are drawn one by one"


WEIGHTS = {"a": 1.0, "c": 2.0, "d": 5.0}


def test_weighted_languages_come_as_often_as_stated():
    index = table(64, "abcd")
    weight = {index.languages.index(name): value / 8 for name, value in WEIGHTS.items()}
    alone = plan(index, "monolingual", batch_size=8, weights=WEIGHTS)
    languages = shares(Counter(int(alone.at(step).query_languages[0]) for step in range(3000)))
    assert languages == {column: pytest.approx(share, abs=0.03) for column, share in weight.items()}
    across = plan(index, "crosslingual", batch_size=8, weights=WEIGHTS)
    drawn = shares(pairs_of(across.at(step) for step in range(3000)))
    assert len(drawn) == 6
    for one, two in combinations(weight, 2):
        either = weight[one] * weight[two] * (1 / (1 - weight[one]) + 1 / (1 - weight[two]))
        assert drawn[one, two] == pytest.approx(either / 2, abs=0.015)
        assert drawn[two, one] == pytest.approx(either / 2, abs=0.015)
    some = plan(index, "parallel", batch_size=8, languages_per_id=2, weights=WEIGHTS)
    sets = Counter(
        tuple(sorted(pair)) for step in range(2000) for pair in some.at(step).query_languages.reshape(-1, 2)
    )
    for (one, two), share in shares(sets).items():
        either = weight[one] * weight[two] * (1 / (1 - weight[one]) + 1 / (1 - weight[two]))
        assert share == pytest.approx(either, abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_weights_for_all_languages_are_no_weights(kind):
    index = table(40, "abc")
    weighted = plan(index, weights=dict.fromkeys("abc", 2.0), **kind)
    assert all(map(same, epochs(weighted), epochs(plan(index, **kind))))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_sources_come_as_often_as_stated(exponent):
    sizes = {"small": 40, "middle": 100, "large": 360}
    bounds = dict(zip(sizes, np.cumsum(list(sizes.values())), strict=True))
    index = table(500, "ab", source=lambda i: next(name for name, end in bounds.items() if i < end))
    walked = plan(index, batch_size=10, exponent=exponent)
    batches = epochs(walked, 6)
    drawn = shares(Counter(index.source_names[index.sources[item]] for b in batches for item in b.items))
    total = sum(size**exponent for size in sizes.values())
    assert drawn == {name: pytest.approx(size**exponent / total, abs=0.01) for name, size in sizes.items()}


def test_english_only_sources_take_part_where_they_can():
    missing = {(i, "de") for i in range(20)}
    index = table(40, ["de", "en"], missing=missing, source=lambda i: "en" if i < 20 else "both")
    assert index.languages == ("de", "en")
    for sampler in ("hybrid", "crosslingual", "parallel"):
        for batch in epochs(plan(index, sampler, languages_per_id=2), 4):
            if batch.kind != MONOLINGUAL or batch.query_languages[0] == 0:
                assert (batch.items >= 20).all()
    mixed = epochs(plan(index, mixing="example"), 4)
    assert any((b.items < 20).any() for b in mixed)
    for batch in mixed:
        here = batch.items < 20
        assert (batch.query_languages[here] == 1).all()
        assert (batch.passage_languages[here] == 1).all()
    english = [b for b in epochs(plan(index, "monolingual"), 4) if b.query_languages[0] == 1]
    assert (np.concatenate([b.items for b in english]) < 20).mean() == pytest.approx(0.5, abs=0.1)


def test_an_index_knows_the_rows_of_its_table():
    index = indexed([("b", "de", "p", "x"), ("a", "en", "q", "w"), ("b", "ar", "p", "x")])
    assert index.languages == ("ar", "de", "en")
    assert index.source_names == ("w", "x")
    assert index.rows.tolist() == [[2, 0, -1], [-1, -1, 1]]
    assert index.sources.tolist() == [1, 0]
    assert index.passages[0] != index.passages[1]
    assert [column.dtype for column in (index.rows, index.passages, index.sources)] == [
        np.int32,
        np.int32,
        np.int16,
    ]


@given(ragged(), st.randoms())
def test_an_index_does_not_depend_on_the_chunks_it_was_built_in(index, random):
    rows = [
        (f"q{i}", lang, f"p{index.passages[i]}", index.source_names[index.sources[i]])
        for i, row in enumerate(index.rows)
        for lang, there in zip(index.languages, row >= 0, strict=True)
        if there
    ]
    random.shuffle(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplers, "_CHUNK", 7)
        chunked = indexed(rows)
    whole = indexed(rows)
    assert chunked.languages == whole.languages == index.languages
    assert all(np.array_equal(chunked[field], whole[field]) for field in (1, 2, 3))
    for item, row in enumerate(whole.rows):
        assert {rows[r][0] for r in row if r >= 0} == {rows[row.max()][0]}
        assert all(rows[r][1] == whole.languages[column] for column, r in enumerate(row) if r >= 0)
        assert whole.source_names[whole.sources[item]] == rows[row.max()][3]


def test_an_id_that_stands_twice_in_a_language_is_named():
    with pytest.raises(UserError, match="id 'a' occurs twice in language 'de'"):
        indexed([("b", "de", "p", "s"), ("a", "de", "p", "s"), ("a", "de", "p", "s")])


def test_data_that_cannot_fill_a_batch_are_refused():
    with pytest.raises(UserError, match=r"train\.batch_size: 4 takes 4 .* 'hybrid' finds only 3"):
        plan(table(6, "ab", per_passage=2))
    nothing = CodedColumn(np.zeros(0, np.int32), ())
    for kind in KINDS:
        with pytest.raises(UserError, match="finds only 0"):
            plan(samplers.build_index(nothing, nothing, nothing, nothing), **kind)
    alone = table(9, ["en"])
    assert plan(alone, "monolingual").at(0).kind == MONOLINGUAL
    for sampler in ("crosslingual", "hybrid"):
        with pytest.raises(UserError, match=f"sampler '{sampler}' finds only 0"):
            plan(alone, sampler)
    halves = table(8, "ab", missing={(i, "ab"[i % 2]) for i in range(8)})
    with pytest.raises(UserError, match="takes 5 different passages but sampler 'monolingual' finds only 4"):
        plan(halves, "monolingual", batch_size=5)
    with pytest.raises(UserError, match="takes 2 different passages, each in 3 languages,.* finds only 0"):
        plan(table(9, "ab"), "parallel", batch_size=6, languages_per_id=3)
    with pytest.raises(UserError, match=r"parallel\.languages: 3 does not divide train\.batch_size, 4"):
        plan(table(9, "abc"), "parallel", languages_per_id=3)


def test_languages_without_enough_passages_for_a_batch_are_named():
    index = table(9, "abc", per_passage=2, missing={(i, "b") for i in range(7)})
    assert plan(index, "monolingual").left_out == {"b": 2}
    assert plan(index, "hybrid").left_out == {"b": 2}
    assert plan(index, "hybrid", mixing="example").left_out == {}
    assert plan(index, "monolingual", batch_size=1).left_out == {}


def test_wrong_weights_are_refused():
    index = table(9, "ab", missing={(i, "b") for i in range(7)})
    for weights, message in (
        ({"a": 1.0, "x": 1.0}, "train.languages: 'x' is not in the data; they have a, b"),
        ({"a": 0.0}, "train.languages: 'a' has weight 0.0; a weight must be above 0"),
        ({"a": float("nan")}, "train.languages: 'a' has weight nan"),
        ({"a": 1.0, "b": 1.0}, "train.languages: 'b' has only 2 different passages"),
    ):
        with pytest.raises(UserError, match=message):
            plan(index, "monolingual", weights=weights)


# --- the order of the ids ------------------------------------------------------------------------


def order(passages, sources=None, *, size=4, seed=0, exponent=1.0):
    passages = np.asarray(passages, np.int32)
    sources = np.zeros(len(passages), np.int16) if sources is None else np.asarray(sources, np.int16)
    rows = np.arange(len(passages), dtype=np.int32)[:, None]
    index = samplers.PairIndex(("en",), rows, passages, sources, ("one",))
    return samplers.IdOrder(index, size=size, seed=seed, exponent=exponent)


def walk(order, number=0):
    return [order.at(number, step) for step in range(len(order))]


@given(st.integers(4, 400), st.integers(1, 7), st.integers(1, 3), st.integers(0, 99))
def test_an_epoch_is_one_order_of_all_ids(ids, size, sources, seed):
    walked = order(range(ids), np.arange(ids) % sources, size=min(size, ids), seed=seed)
    assert len(walked) == ids // min(size, ids)
    for number in range(3):
        seen = np.concatenate(walk(walked, number))
        assert len(seen) == len(set(seen)) == len(walked) * min(size, ids)
    assert not np.array_equal(seen[:1000], np.concatenate(walk(walked, 0))[:1000]) or ids < 20


@given(st.integers(2, 4), st.sampled_from([0.5, 1.0]), st.integers(0, 99))
def test_ids_that_share_a_passage_are_kept_apart(group, exponent, seed):
    """No batch has two of one passage, and the places that ids change leave an epoch what it was."""
    passages, sources = np.arange(240) // group, np.arange(240) % 40 < 30
    walked = order(passages, sources, size=8, seed=seed, exponent=exponent)
    for number in range(2):
        drawn = walk(walked, number)
        assert all(len(set(passages[items])) == 8 for items in drawn)
        assert exponent < 1 or sorted(np.concatenate(drawn)) == list(range(240))


def test_keeping_passages_apart_leaves_chance_its_place():
    """Any two ids of different passages meet about as often as any two others."""
    passages = np.arange(24) // 2
    meetings = Counter()
    for seed in range(1500):
        for items in walk(order(passages, seed=seed)):
            meetings.update((a, b) for a in items.tolist() for b in items.tolist() if a < b)
    apart = [(a, b) for a in range(24) for b in range(a + 1, 24) if passages[a] != passages[b]]
    assert set(meetings) == set(apart)
    mean = 1500 * 6 * 6 / len(apart)
    assert all(abs(meetings[pair] - mean) < 6 * math.sqrt(mean) for pair in apart)


def test_every_id_is_as_likely_to_be_in_any_batch():
    steps = np.zeros((20, 5), int)
    for seed in range(2000):
        for step, items in enumerate(walk(order(range(20), seed=seed))):
            steps[items, step] += 1
    # 400 expected; the standard deviation is below 18.
    assert (np.abs(steps - 400) < 110).all()


def test_what_shares_a_passage_is_not_seen_in_a_row():
    """The two ids of a passage lie any number of batches apart."""
    passages = np.arange(80) // 2
    apart = Counter()
    for seed in range(40):
        steps = np.empty(80, int)
        for step, items in enumerate(walk(order(passages, seed=seed))):
            steps[items] = step
        apart.update(abs(steps[::2] - steps[1::2]).tolist())
    # Of 20 batches 19 pairs are neighbours, out of 190.
    assert apart[1] / apart.total() == pytest.approx(0.1, abs=0.04)


def test_each_slice_of_a_batch_has_of_all_sources():
    sources = np.repeat([0, 1], 200)
    walked = order(range(400), sources, size=20, exponent=0.5)
    first = np.concatenate([items[:5] for items in walk(walked)])
    assert sources[first].mean() == pytest.approx(0.5, abs=0.15)


@given(st.sampled_from([0.0, 0.5, 0.9]), st.integers(0, 99))
def test_sources_have_their_share_of_every_batch(exponent, seed):
    sizes = np.array([300, 60, 140])
    sources = np.repeat([2, 0, 5], sizes)
    walked = order(range(500), sources, size=20, seed=seed, exponent=exponent)
    share = sizes**exponent / (sizes**exponent).sum() * 20
    counts = np.array(
        [
            [(sources[items] == name).sum() for name in (2, 0, 5)]
            for n in range(8)
            for items in walk(walked, n)
        ]
    )
    assert (abs(counts - share) < 1).all()
    assert np.allclose(counts.mean(axis=0), share, atol=0.1)


@given(st.integers(0, 99))
def test_nothing_of_a_source_comes_again_before_all_of_it_came(seed):
    sources = np.repeat([0, 1], [17, 90])
    walked = order(range(107), sources, size=8, seed=seed, exponent=0.0)
    times = np.zeros(107, int)
    for number in range(5):
        for items in walk(walked, number):
            np.add.at(times, items, 1)
            assert all(np.ptp(times[sources == name]) <= 1 for name in (0, 1))
    assert times[:17].min() > 1


def test_any_step_is_reached_directly():
    sources = np.repeat([0, 1], [40, 100])
    for exponent in (1.0, 0.5):
        walked = order(np.arange(140) // 2, sources, exponent=exponent)
        batches = [walk(walked, number) for number in range(3)]
        for number in (2, 0, 1):
            for step in reversed(range(len(walked))):
                fresh = order(np.arange(140) // 2, sources, exponent=exponent)
                assert np.array_equal(fresh.at(number, step), batches[number][step])
                assert len(batches[number][step]) == 4


# --- which ids are eligible ------------------------------------------------------------


def random_numbers(seed=0):
    return np.random.default_rng(seed)


@st.composite
def ragged_rows(draw):
    """Rows and passages of ids that lack languages and share passages."""
    ids, languages = draw(st.integers(5, 80)), draw(st.integers(1, 5))
    there = random_numbers(draw(st.integers(0, 999))).random((ids, languages)) < draw(
        st.sampled_from([0.05, 0.5, 1.0])
    )
    rows = np.where(there, np.arange(ids * languages).reshape(ids, languages), -1).astype(np.int32)
    passages = random_numbers(ids).integers(draw(st.integers(2, 80)), size=ids).astype(np.int32)
    least = draw(st.integers(1, 2))
    chosen = np.flatnonzero(random_numbers(least).random(languages) < 0.8)
    zeros = np.zeros(ids, np.int16)
    index = samplers.PairIndex(tuple("abcde"[:languages]), rows, passages, zeros, ("one",))
    return index, chosen if len(chosen) else np.array([0]), least


def index_of(rows):
    zeros = np.zeros(len(rows), np.int16)
    names = tuple("abcde"[: rows.shape[1]])
    return samplers.PairIndex(names, rows, np.arange(len(rows), dtype=np.int32), zeros, ("one",))


def those_that_fit(rows, chosen, least):
    return [item for item, row in enumerate(rows) if sum(row[c] >= 0 for c in chosen) >= least]


@given(ragged_rows())
def test_what_fits_and_how_many_passages_that_is(table):
    index, chosen, least = table
    need = samplers.require_languages(index, chosen, least)
    fit = those_that_fit(index.rows, chosen, least)
    assert np.flatnonzero(need.mask).tolist() == fit
    assert len(need.rare) == 0 or need.rare.tolist() == fit
    assert samplers.count_passages(index, need) == len({index.passages[item] for item in fit})


@given(ragged_rows(), st.integers(0, 99))
def test_others_take_the_places_of_those_that_do_not_fit(table, seed):
    index, chosen, least = table
    need = samplers.require_languages(index, chosen, least)
    fit = those_that_fit(index.rows, chosen, least)
    passages = index.passages
    size = len({passages[item] for item in fit})
    items = random_numbers(seed).integers(len(passages), size=size)
    filled = samplers.replace_ineligible(index, need, items, need.mask[items], random_numbers(seed))
    assert set(filled) <= set(fit)
    assert len(set(passages[filled])) == len(filled) == size
    seen = set()
    for before, after in zip(items, filled, strict=True):
        stays = before in fit and passages[before] not in seen
        assert not stays or after == before
        seen |= {passages[before]} if stays else set()


@pytest.mark.parametrize("fitting", [40, 400])
def test_every_id_that_fits_is_as_likely_to_be_taken(fitting):
    """Drawn from a list where they are rare (40 of 1000), by rejection otherwise."""
    rows = np.full((1000, 1), -1, np.int32)
    rows[:fitting] = 0
    index = index_of(rows)
    need = samplers.require_languages(index, np.array([0]), 1)
    assert (len(need.rare) > 0) == (fitting == 40)
    bad = np.arange(990, 1000)
    taken = Counter()
    for seed in range(2000):
        taken.update(
            samplers.replace_ineligible(index, need, bad, np.zeros(10, bool), random_numbers(seed)).tolist()
        )
    mean = 20000 / fitting
    assert all(abs(taken[item] - mean) < 6 * math.sqrt(mean) for item in range(fitting))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 2.0, 5.0)])
def test_languages_are_drawn_one_after_the_other_by_weight(weights):
    rows = np.tile(np.array([0, -1, 1, 2], np.int32), (60_000, 1))
    held, weight = (0, 2, 3), dict(zip((0, 2, 3), weights, strict=True))
    columns = np.arange(4)
    drawn = samplers.draw_languages(
        index_of(rows),
        np.arange(60_000),
        columns,
        np.array([weight.get(c, 9.0) for c in columns]),
        2,
        random_numbers(),
    )
    pairs = Counter(map(tuple, drawn.tolist()))
    assert set(pairs) == set(permutations(held, 2))
    total = sum(weights)
    for (first, second), count in pairs.items():
        expected = weight[first] / total * weight[second] / (total - weight[first])
        assert count / 60_000 == pytest.approx(expected, abs=0.01)
