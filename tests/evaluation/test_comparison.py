import numpy as np
import pytest

from hexapla.evaluation import comparison, results, statistics
from hexapla.evaluation.scoreboard import MEASURES
from hexapla.reporting.result_tables import Model
from hexapla.schema import UserError
from worlds import written

MULTI = MEASURES["map_multi"]


def read(folder, *, names=("candidate", "untuned"), seeds=(0, 1), near=(3.0, 1.0)):
    for name, seed, how in zip(names, seeds, near, strict=True):
        written(folder / name, name, seed, how)
    return [Model(name, [results.read(folder / name)]).judged() for name in names]


def test_figures_are_the_scores_with_the_bootstraps_interval(tmp_path):
    (mine, _) = read(tmp_path)
    figures = comparison.figures("sample", mine)
    for key, figure in figures.items():
        assert figure.value == mine.results[0].scores["sample"]["none"][key]
        assert figure.low <= figure.value <= figure.high
        assert figure.deviation is None
    outcome = mine.outcome("sample", MULTI)
    assert (figures["map_multi"].low, figures["map_multi"].high) == statistics.interval(
        outcome.sums, outcome.counts
    )


def test_p_values_are_corrected_over_the_whole_table(tmp_path):
    mine, other = read(tmp_path)
    measures = comparison.measures_of("sample", mine)
    raw = []
    for each in measures:
        a, b = (model.outcome("sample", each) for model in (mine, other))
        raw.append(statistics.paired(a.sums, b.sums, a.counts))
    (test,) = comparison.contrasts("sample", mine, [other], measures)
    np.testing.assert_allclose([test[m.key].p for m in measures], statistics.holm(raw))
    two = comparison.contrasts("sample", mine, [other, other], measures)
    assert two[0][MULTI.key].p >= test[MULTI.key].p
    assert test[MULTI.key].significant
    assert test[MULTI.key].difference == pytest.approx(
        mine.results[0].scores["sample"]["none"]["map_multi"]
        - other.results[0].scores["sample"]["none"]["map_multi"]
    )


def test_a_model_against_itself_is_no_difference(tmp_path):
    mine, _ = read(tmp_path)
    (test,) = comparison.contrasts("sample", mine, [mine], [MULTI])
    assert test["map_multi"] == (0.0, 1.0)
    assert not test["map_multi"].significant


def test_seeds_are_averaged_question_by_question(tmp_path):
    one, two = (results.read(written(tmp_path / str(i), "m", i)) for i in (1, 2))
    both = Model("m", [one, two]).judged()
    figure = comparison.figures("sample", both)["map_multi"]
    each = [r.scores["sample"]["none"]["map_multi"] for r in (one, two)]
    assert figure.value == pytest.approx(np.mean(each), abs=1e-6)
    assert figure.deviation == pytest.approx(np.std(each, ddof=1))
    single = comparison.figures("sample", Model("m", [one]).judged())["map_multi"]
    assert figure.high - figure.low < single.high - single.low


def test_seeds_are_those_whose_cards_differ_in_the_seed_alone(tmp_path):
    cards = {
        "candidate": {"sampler": "hybrid", "alpha": 0.5, "seed": 13},
        "hybrid-14": {"sampler": "hybrid", "alpha": 0.5, "seed": 14},
        "hybrid-15": {"sampler": "hybrid", "alpha": 0.3, "seed": 15},
        "copy": {"sampler": "hybrid", "alpha": 0.5, "seed": 13},
    }
    read = {name: results.read(written(tmp_path / name, name, **card)) for name, card in cards.items()}
    found = comparison.seeds_of(read, "candidate")
    assert [each.card["name"] for each in found] == ["candidate", "hybrid-14"]


def test_models_that_were_trained_with_other_lengths_are_no_seeds_of_one(tmp_path):
    """Evaluation has settings of the same names, which must not hide those of training."""
    alike = {"query_tokens": 64, "precision": "fp32"}
    cards = {
        "short": {"query_tokens": 32, "precision": "bf16", "seed": 1},
        "long": {"query_tokens": 48, "precision": "fp32", "seed": 2},
        "short-3": {"query_tokens": 32, "precision": "bf16", "seed": 3},
    }
    read = {
        name: results.read(written(tmp_path / name, name, evaluation=alike, **card))
        for name, card in cards.items()
    }
    assert [each.card["name"] for each in comparison.seeds_of(read, "short")] == ["short", "short-3"]


def test_models_judged_on_other_questions_are_refused(tmp_path):
    mine, other = read(tmp_path)
    outcomes = other.results[0].outcomes["sample"]["none"]
    fewer = outcomes["multi"]["map"]
    outcomes["multi"]["map"] = fewer._replace(
        clusters=fewer.clusters[1:], sums=fewer.sums[1:], counts=fewer.counts[1:]
    )
    with pytest.raises(UserError, match="'candidate' and 'untuned' were not judged on the same questions"):
        comparison.contrasts("sample", mine, [other], [MULTI])
