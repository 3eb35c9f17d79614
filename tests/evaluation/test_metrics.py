import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, RR, R, ScoredDoc, nDCG

from hexapla.evaluation import metrics
from hexapla.evaluation.metrics import (
    METRICS,
    QueryScores,
    RankedQueries,
    average_headlines,
    average_precision,
    average_precision_at,
    find_best,
    ndcg_at,
    own_language_share,
    rank_distance,
    recall_at,
    recall_matrix,
    recall_of_others,
    score_queries,
    share_matrix,
    worst_rank,
)
from hexapla.evaluation.ranking import JudgedRanks, ParallelRanks
from hexapla.schema import UNFOUND
from worlds import ranks

rankings = st.lists(st.integers(1, 30), min_size=1, max_size=8, unique=True)
ORACLES = {"map": AP, "mrr": RR, "r1": R @ 1, "r10": R @ 10, "r100": R @ 100, "ndcg10": nDCG @ 10}


def by_definition(ranks):
    """Precision at every relevant rank of the list, walked from its top."""
    found, total = 0, 0.0
    for place in range(1, max(ranks) + 1):
        if place in ranks:
            found += 1
            total += found / place
    return total / len(ranks)


def as_xtreme_scores_it(targets, ranked, k):
    """The published scorer restated: hits are summed down to k, over min(targets, k)."""
    hits, score = 0, 0.0
    for place, passage in enumerate(ranked[:k], start=1):
        if passage in targets:
            hits += 1
            score += hits / place
    return score / min(len(targets), k)


@given(rankings, st.integers(0, 3), st.randoms())
def test_average_precision_is_its_definition_in_any_order_with_any_padding(ranks, padding, random):
    columns = [*ranks, *[0] * padding]
    random.shuffle(columns)
    assert average_precision(np.array([columns]))[0] == pytest.approx(by_definition(ranks))


@given(rankings, st.integers(1, 40), st.integers(0, 3), st.randoms())
def test_average_precision_at_k_is_xtremes(ranks, k, unfound, random):
    ranked = [place if place in ranks else -place for place in range(1, 31)]
    targets = {*ranks, *range(100, 100 + unfound)}
    columns = [*ranks, *[UNFOUND] * unfound, 0]
    random.shuffle(columns)
    expected = as_xtreme_scores_it(targets, ranked, k)
    assert average_precision_at(np.array([columns]), k)[0] == pytest.approx(expected)


def test_average_precision_at_k_by_hand():
    """More relevant than k: all of the first k relevant is 1, where TREC's map_cut would say 2/3."""
    ranks = np.array([[1, 2, 3], [2, 5, UNFOUND], [7, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(average_precision_at(ranks, 2), [1, 1 / 2 / 2, 0, np.nan])


@given(rankings, st.integers(1, 12))
def test_recall_counts_the_relevant_among_the_first(ranks, k):
    expected = len([rank for rank in ranks if rank <= k]) / len(ranks)
    assert recall_at(np.array([[*ranks, 0]]), k)[0] == pytest.approx(expected)


def test_ndcg_by_hand():
    ranks = np.array([[1, 3], [2, UNFOUND], [0, 4], [11, 0]])
    best = 1 + 1 / np.log2(3)
    expected = [(1 + 1 / 2) / best, 1 / np.log2(3) / best, 1 / np.log2(5), 0]
    np.testing.assert_allclose(ndcg_at(ranks, k=10), expected)
    graded = ndcg_at(ranks[:1], np.array([[1, 3]]), k=10)
    np.testing.assert_allclose(graded, (1 + 3 / 2) / (3 + 1 / np.log2(3)))
    np.testing.assert_allclose(ndcg_at(ranks[:1], np.array([[0, -2]]), k=10), [np.nan])


def judged(rng, *, questions=12, passages=130, depth):
    """Random rankings full of ties, broken by position, as ranks and in TREC's form, cut at `depth`.

    trec_eval breaks ties by document name, the greater first: earlier passages get greater names.
    """
    names = [f"d{9999 - position}" for position in range(passages)]
    ranks = np.zeros((questions, 16), dtype=np.int64)
    grades = np.zeros_like(ranks)
    qrels, run = {}, []
    for row in range(questions):
        scores = rng.integers(0, 20, passages)
        order = sorted(range(passages), key=lambda c: (-scores[c], c))
        held = rng.choice(passages, size=rng.integers(1, 15), replace=False)
        for column, passage in enumerate(held):
            place = order.index(passage) + 1
            ranks[row, column] = place if place <= depth else UNFOUND
            grades[row, column] = rng.integers(1, 4)
        qrels[str(row)] = {names[c]: int(g) for c, g in zip(held, grades[row], strict=False)}
        run += [ScoredDoc(str(row), names[c], float(scores[c])) for c in order[:depth]]
    return ranks, grades, qrels, run


def oracle(measure, qrels, run):
    values = {metric.query_id: metric.value for metric in ir_measures.iter_calc([measure], qrels, run)}
    return [values[str(row)] for row in range(len(values))]


@pytest.mark.parametrize("depth", [130, 20])
@pytest.mark.parametrize("name", ORACLES)
def test_metrics_are_trec_evals_with_ties_and_cut_rankings(name, depth):
    ranks, grades, qrels, run = judged(np.random.default_rng(7), depth=depth)
    binary = {query: dict.fromkeys(found, 1) for query, found in qrels.items()}
    for metric in metrics.ALL:
        if metric.name == name and metric.setting == "judged":
            known = qrels if name == "ndcg10" else binary
            ranked = RankedQueries(ranks, np.zeros(len(ranks), int), grades)
            np.testing.assert_allclose(metric.compute(ranked), oracle(ORACLES[name], known, run))
        elif metric.name == name:
            ranked = RankedQueries(ranks, np.zeros(len(ranks), int))
            np.testing.assert_allclose(metric.compute(ranked), oracle(ORACLES[name], binary, run))


@pytest.mark.parametrize("name", [*ORACLES, "map20"])
def test_best_ranks_are_one_and_no_relevant_is_no_number(name):
    ranked = RankedQueries(np.array([[1], [0], [UNFOUND]]), np.zeros(3, int))
    values = next(metric for metric in metrics.ALL if metric.name == name).compute(ranked)
    np.testing.assert_array_equal(values, [1, np.nan, 0])


RANKS = np.array([[3, 1, 10], [2, 0, 5], [7, 0, 0], [0, 0, 0], [4, UNFOUND, 2], [UNFOUND, 0, UNFOUND]])


def test_rank_distance_by_hand():
    np.testing.assert_array_equal(rank_distance(RANKS), [9, 3, np.nan, np.nan, np.inf, np.inf])


def test_rank_distance_of_translations_that_lead_is_their_number_less_one():
    assert rank_distance(np.array([[4, 2, 3, 1]]))[0] == 3


def test_worst_rank_by_hand():
    np.testing.assert_array_equal(worst_rank(RANKS), [10, 5, 7, np.nan, np.inf, np.inf])


def test_worst_rank_sees_translations_that_are_all_lost_and_rank_distance_does_not():
    together = np.array([[1, 2, 3], [1001, 1002, 1003]])
    np.testing.assert_array_equal(rank_distance(together), [2, 2])
    np.testing.assert_array_equal(worst_rank(together), [3, 1003])


def test_own_language_share_by_hand():
    top = np.array([[0, 0, 1, 2], [1, 1, 1, 1], [2, 0, 0, 2]])
    np.testing.assert_array_equal(own_language_share(top, np.array([0, 1, 1])), [0.5, 1.0, 0.0])


def test_recall_of_others_by_hand():
    """The own language's rank is never looked at, however good; what was not found counts."""
    asked = np.array([1, 0, 0, 0, 2, 1])
    recall = recall_of_others(RANKS, asked, k=4)
    np.testing.assert_array_equal(recall, [1 / 2, 0, np.nan, np.nan, 1 / 2, 0])


def test_recall_matrix_by_hand():
    single = np.array([[1, 2, 0], [1, 1, 0], [5, 1, 0], [0, 0, 1]])
    matrix = recall_matrix(single, np.array([0, 0, 1, 1]))
    expected = [[1, 1 / 2, np.nan], [0, 1, 1], [np.nan, np.nan, np.nan]]
    np.testing.assert_array_equal(matrix, expected)


def test_share_matrix_by_hand():
    top = np.array([[0, 0, 1, 2], [0, 0, 0, 0], [2, 1, 1, 1]])
    matrix = share_matrix(top, np.array([0, 0, 2]), languages=3)
    np.testing.assert_array_equal(matrix, [[6 / 8, 1 / 8, 1 / 8], [np.nan] * 3, [0, 3 / 4, 1 / 4]])


@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 30), st.integers(1, 6))
def test_matrices_agree_with_the_figures_by_question(seed, languages, questions, k):
    rng = np.random.default_rng(seed)
    asked = rng.integers(0, languages, questions)
    top = rng.integers(0, languages, (questions, k))
    single = rng.integers(0, 3, (questions, languages))
    share, first = share_matrix(top, asked, languages=languages), recall_matrix(single, asked)
    own = own_language_share(top, asked)
    for lang in range(languages):
        rows = asked == lang
        assert np.isnan(share[lang]).all() != rows.any()
        if rows.any():
            np.testing.assert_allclose(share[lang].sum(), 1)
            np.testing.assert_allclose(share[lang, lang], own[rows].mean())
        for other in range(languages):
            held = single[rows, other]
            held = held[held > 0]
            expected = (held == 1).mean() if held.size else np.nan
            np.testing.assert_allclose(first[lang, other], expected)


def by_hand(values, asked, where):
    return float(np.nanmean(values[(asked == where)]))


def test_figures_are_means_over_questions_then_over_groups():
    made = ranks()
    found = score_queries(made)
    precision = average_precision(made.in_pool)
    each = [by_hand(precision, made.query_languages, lang) for lang in range(3)]
    assert list(found["multi"]["map"].by_group().values()) == pytest.approx(each, abs=1e-6)
    assert found["multi"]["map"].average() == pytest.approx(np.mean(each), abs=1e-6)
    first = {
        f"{a}-{b}": (made.in_language[made.query_languages == i, j] == 1).mean()
        for i, a in enumerate(made.languages)
        for j, b in enumerate(made.languages)
        if a != b
    }
    assert found["cross"]["r1"].by_group() == pytest.approx(first, abs=1e-6)
    own = [(made.in_language[made.query_languages == i, i] == 1).mean() for i in range(3)]
    assert list(found["mono"]["r1"].by_group().values()) == pytest.approx(own, abs=1e-6)


def test_micro_averages_weigh_questions_and_macro_averages_weigh_languages():
    """Two languages, one with three questions; a question that exists in one language only."""
    ids = np.array(["q1", "q2", "q3", "q1"])
    single = np.array([[1, 1], [9, 0], [9, 0], [1, 1]])
    multi = np.array([[1, 2], [9, 0], [9, 0], [1, 2]])
    made = ParallelRanks(
        ("de", "en"), ids, np.array([0, 0, 0, 1]), single, multi, np.zeros((4, 10), dtype=int)
    )
    found = score_queries(made)["multi"]
    assert found["map20"].average() == pytest.approx((1 + 1 / 9 + 1 / 9 + 1) / 4, abs=1e-6)
    assert found["map"].average() == pytest.approx(((1 + 2 / 9) / 3 + 1) / 2, abs=1e-6)
    assert found["map"].clusters.tolist() == ["q1", "q2", "q3"]
    assert found["map"].counts.tolist() == [[1, 1], [1, 0], [1, 0]]
    cross = score_queries(made)["cross"]["map"]
    assert cross.counts.sum(axis=0).tolist() == [1, 1], "only ids that both languages have"
    others = found["r10_other"]
    assert others.counts.tolist() == [[1, 1], [0, 0], [0, 0]]


def test_no_observation_is_no_figure():
    empty = QueryScores(("de",), np.array(["q1"]), np.zeros((1, 1)), np.zeros((1, 1), dtype=int))
    assert empty.average() is None
    assert empty.by_group() == {"de": None}


def test_a_topics_number_counts_within_its_language():
    ranked = np.array([[1, 0], [UNFOUND, 2]])
    grades = np.array([[1, 0], [1, 1]])
    found = JudgedRanks(("sw", "yo"), np.array(["7", "7"]), np.array([0, 1]), ranked, grades)
    judged = score_queries(found)["judged"]
    assert judged["r100"].by_group() == {"sw": 1.0, "yo": 0.5}
    assert judged["r100"].clusters.tolist() == ["sw 7", "yo 7"]
    gain = (1 / np.log2(3)) / (1 + 1 / np.log2(3))
    assert judged["ndcg10"].average() == pytest.approx((1 + gain) / 2, abs=1e-6)


def test_every_headline_is_an_average_of_its_setting():
    found = score_queries(ranks())
    for key, metric in METRICS.items():
        if metric in metrics.JUDGED:
            continue
        assert found[metric.setting][metric.name].average() == average_headlines(found)[key]


def test_best_knows_the_direction_of_each_measure():
    boards = [
        {"map_multi": 0.5, "rank_distance": 9.0, "own_language_top10": 0.01},
        {"map_multi": 0.7, "rank_distance": 3.0, "own_language_top10": 0.30},
        {"map_multi": None, "rank_distance": None, "own_language_top10": 0.45},
    ]
    assert find_best(METRICS["map_multi"], boards, 4) == {1}
    assert find_best(METRICS["rank_distance"], boards, 4) == {1}
    assert find_best(METRICS["own_language_top10"], boards, 4) == {1}, (
        "1/4 is even; 0.01 shuns its own language"
    )


def test_what_looks_equal_is_equally_good():
    boards = [{"map_multi": 0.70011}, {"map_multi": 0.70049}, {"map_multi": 0.6996}]
    assert find_best(METRICS["map_multi"], boards, 4) == {0, 1, 2}
    assert find_best(METRICS["map_multi"], [{"map_multi": None}], 4) == set()


def test_ideals():
    assert METRICS["rank_distance"].ideal(11) == 10
    assert METRICS["worst_rank"].ideal(11) == 11
    assert METRICS["own_language_top10"].ideal(4) == 0.25
    assert METRICS["map_mono"].ideal(4) == 1


def test_what_is_only_in_details_is_no_headline():
    scores = score_queries(ranks())
    assert {"r10", "map", "r1"} == set(scores["mono"]) == set(scores["cross"])
    assert {"ndcg10", "r100"} <= set(scores["multi"])
    assert list(average_headlines(scores)) == [key for key in METRICS if key not in ("ndcg10", "r100")]
    assert len({(metric.setting, metric.name) for metric in metrics.ALL}) == len(metrics.ALL)
