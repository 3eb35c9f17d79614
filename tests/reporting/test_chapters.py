import re

from hexapla.evaluation import comparison
from hexapla.reporting import chapters
from worlds import model

MODELS = [
    model("candidate", map_multi=0.75, rank_distance=20.0, centred={"map_multi": 0.7, "rank_distance": 20.0}),
    model("untuned", map_multi=0.40, rank_distance=90.0, centred={"map_multi": 0.78, "rank_distance": 20.0}),
    model("crosslingual", map_multi=0.80, rank_distance=20.0),
]


def chapter(models=MODELS):
    compared = comparison.compared("sample", [each.judged() for each in models])
    return "\n\n".join(chapters.results("sample", models, compared, "figures"))


def section(title, text=None):
    return (text or chapter()).split(f"### {title}")[1].split("\n#")[0]


def test_the_first_lines_say_who_is_best_who_is_not_and_how_sure_that_is():
    text = chapter()
    assert ("**0.750**, not the best (untuned 0.400, p = 0.002; crosslingual 0.800, p = 0.002).") in text
    assert "crosslingual 20.0, p = 1.000, no significant difference)" in text
    assert "**0.750**, the best (untuned 0.400" in chapter(MODELS[:2])
    assert "mAP over the pool of all languages is **0.750**, the best." in chapter(MODELS[:1])


def test_every_model_stands_in_both_tables():
    for title in ("Finding the answer", "Language bias"):
        rows = re.findall(r"^\| (candidate|untuned|crosslingual)\b", section(title), re.MULTILINE)
        assert rows == ["candidate", "untuned", "crosslingual"]
    assert "0.400 ▼" in section("Finding the answer")
    assert "**0.800** ▲" in section("Finding the answer")


def test_the_report_says_plainly_when_training_does_not_beat_centring():
    text = section("The control that costs nothing")
    assert (
        "In mAP multi the trained candidate (0.750) is **worse than** the untuned encoder centred, pool's "
        "means (0.780; p < 0.001)."
    ) in text
    assert "In Rank distance the trained candidate (20.0) is **not significantly different from**" in text
    rows = re.findall(r"^\| (\w+).*?\| (as they are|centred, pool's means) ", text, re.MULTILINE)
    assert len(rows) == 6
    better = [MODELS[0], model("untuned", map_multi=0.4, centred={"map_multi": 0.5})]
    assert "(0.750) is better than the untuned encoder" in section(
        "The control that costs nothing", chapter(better)
    )


def test_the_method_is_told_where_the_signs_point():
    text = chapter()
    assert "[¹](#how-sure-the-figures-are)" in text
    method = section("How sure the figures are")
    assert "source questions" in method
    assert "Holm-corrected" in method


def test_a_judged_benchmark_has_its_own_measures_and_no_pictures():
    import numpy as np

    from hexapla.evaluation import results
    from hexapla.evaluation.per_query import Found, outcomes

    found = outcomes(
        Found(
            ("sw", "yo"), np.array(["1", "1"]), np.array([0, 1]), np.array([[1], [2]]), np.array([[1], [1]])
        )
    )
    made = MODELS[0].results[0]._replace(
        scores={"miracl": {"none": results.headline(found)}},
        benchmarks={
            "miracl": {
                "format": "miracl", "languages": ["sw", "yo"], "questions": 2, "candidates": 500,
                "centring": {"none": {"judged": {n: o.by_group() for n, o in found["judged"].items()}}},
            }
        },
        outcomes={"miracl": {"none": found}},
    )  # fmt: skip
    alone = MODELS[0]._replace(results=[made])
    compared = comparison.compared("miracl", [alone.judged()])
    text = "\n\n".join(chapters.results("miracl", [alone], compared, "figures"))
    assert "nDCG@10 by the question's language" in text
    assert "![" not in text
    assert "mAP" not in text
