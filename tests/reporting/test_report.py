import json
import re

import pytest

from hexapla.evaluation import statistics
from hexapla.pipeline.gate import gate
from hexapla.reporting import report as reporting
from hexapla.reporting.report import StageSummaries
from worlds import model, summaries

MODELS = [
    model("candidate", map_multi=0.75, rank_distance=20.0),
    model("untuned", map_multi=0.40, rank_distance=90.0),
    model("crosslingual", map_multi=0.80, rank_distance=20.0),
]


CENTERED = [
    model(
        "candidate", map_multi=0.75, rank_distance=20.0, centered={"map_multi": 0.7, "rank_distance": 20.0}
    ),
    model("untuned", map_multi=0.40, rank_distance=90.0, centered={"map_multi": 0.78, "rank_distance": 20.0}),
    model("crosslingual", map_multi=0.80, rank_distance=20.0),
]


def report(models=MODELS, **validation):
    benchmarks = models[0].results[0].benchmarks
    compared = {b: statistics.compare_models(b, [each.judged() for each in models]) for b in benchmarks}
    return reporting.markdown(StageSummaries(*summaries(**validation).values()), models, compared, "figures")


def test_every_model_stands_in_the_training_table():
    section = report().split("## How the models were trained")[1].split("\n#")[0]
    assert re.findall(r"^\| (candidate|untuned|crosslingual)\b", section, re.MULTILINE) == [
        "candidate",
        "untuned",
        "crosslingual",
    ]


def test_limits_speak_of_seeds_only_while_there_is_one():
    assert "trained once, with seed 7" in report()
    assert "was trained once" not in report([model("candidate", seeds=(7, 8)), *MODELS[1:]])


def test_what_was_rejected_is_told_by_language():
    text = report()
    assert "27 met every expectation (90.0 %; the stage fails below 80 %)" in text
    assert re.search(r"\| passage language +\| de 1, en 1, zh 1 +\| +3 \|", text)
    assert "Every row met: language code." in text
    assert re.search(r"\| sample +\| +120 \| +0 \|", text)


def chapter(collect=(), translate=(), **validation):
    """The report with more in each summary than the least that a stage writes."""
    reported = summaries(**validation)
    made = StageSummaries(
        reported["collect"] | dict(collect), reported["translate"] | dict(translate), reported["validation"]
    )
    return reporting.markdown(
        made, MODELS[:1], {"sample": statistics.compare_models("sample", [MODELS[0].judged()])}, "figures"
    )


QUALITY = {
    "de": {
        "length_ratio": {"counted": 9, "quantiles": [0.8, 1.0, 1.1, 1.2, 1.5]},
        "cosine": {"counted": 0, "quantiles": []},
        "answer_kept": {"counted": 9, "share": 0.9},
    },
    "zh": {"length_ratio": {"counted": 9, "quantiles": [0.2, 0.25, 0.3, 0.35, 0.45]}},
}


def test_an_older_summary_without_quality_sources_and_near_matches_leaves_them_out():
    text = chapter()
    for absent in (
        "What translation kept",
        "quality.png",
        "by source",
        "near duplicates",
        "near match",
        "contamination.csv",
        "hard negatives",
    ):
        assert absent not in text
    assert re.search(
        r"\| language +\| +rows \| +not translated \| +answers lost \| +rejected \| +kept \|", text
    )
    assert re.search(r"\| de +\| +10 \| +1 \| +4 \| +1 \| +9 \|", text)


def test_quality_is_told_by_language_for_measures_that_some_row_has():
    text = chapter(translate={"quality": QUALITY})
    assert re.search(r"\| language +\| +length ratio \| +answer kept \|", text), "no row has a cosine"
    assert re.search(r"\| de +\| +1\.10 \(0\.80–1\.50\) \| +90\.0% \|", text)
    assert re.search(r"\| zh +\| +0\.30 \(0\.20–0\.45\) \| +– \|", text)
    assert "](figures/quality.png)" in text
    assert reporting.quality_quantiles({"quality": QUALITY}) == (
        ["de", "zh"],
        {
            "length ratio": [
                QUALITY["de"]["length_ratio"]["quantiles"],
                QUALITY["zh"]["length_ratio"]["quantiles"],
            ]
        },
    )
    assert reporting.quality_quantiles({}) == ([], {})


def test_sources_are_followed_from_reading_to_validation():
    text = chapter(
        collect={"sources": {"a|b": {"read": 14, "kept": 10, "near_duplicates": 3}}, "near_duplicates": 3},
        sources={"a|b": {"rows": 30, "kept": 27}},
    )
    assert re.search(
        r"\| source +\| +read \| +near duplicates \| +collected \| +rows \| +rejected \| +kept", text
    )
    assert re.search(r"\| a\\\|b +\| +14 \| +3 \| +10 \| +30 \| +3 \| +27 \|", text)
    assert "after removing 2 exact and 3 near duplicates" in text


def test_rejections_are_told_by_source_and_dropped_negatives_by_reason():
    check = {"name": "cosine", "rejected": 3, "languages": {"de": 3}, "sources": {"squad": 2, "wikiqa": 1}}
    text = chapter(expectations=[check], negatives={"kept": 7, "dropped": {"in a benchmark": 2, "empty": 0}})
    assert re.search(r"\| cosine +\| de 3 +\| squad 2, wikiqa 1 +\| +3 \|", text)
    assert "Of the hard negatives of the rows that were kept, 7 remain; dropped: in a benchmark 2." in text
    assert "Every row met: no expectation." in text


def test_contamination_tells_near_matches_and_what_nobody_can_see():
    text = chapter(
        benchmarks={"xquad-r": {"texts": 1200, "matches": 2, "near": 5}},
        not_seen=["Articles that both use.", "The encoder's <pretraining>."],
    )
    assert re.search(r"\| benchmark +\| +texts \| +found \| +near matches \|", text)
    assert re.search(r"\| xquad-r +\| +1,200 \| +2 \| +5 \|", text)
    assert "`reports/contamination.csv` lists each text with its match" in text
    assert "These cannot be seen from here: Articles that both use. The encoder's \\<pretraining\\>." in text


def test_engines_may_differ_by_language():
    text = chapter(translate={"engine": {"de": "opus", "es": "apertium", "fr": "opus"}})
    assert "Translated by `opus`, `apertium`." in text


def test_names_from_data_are_no_markup():
    hostile = model("candidate", benchmark="sample")
    hostile.training["encoder"] = "x`|<script>"
    text = report([hostile], benchmarks={"<b>|*": {"texts": 1, "matches": 0}})
    assert "\\<b\\>\\|\\*" in text
    assert "`x'/<script>`" in text


def test_models_without_training_have_no_loss_figure():
    text = report([model("candidate", sampler="untuned")])
    assert "loss.png" not in text
    assert "candidate (untuned)" in text


def test_every_benchmark_has_its_own_chapter():
    one, other = MODELS[0].results[0], model("candidate", benchmark="xquad-r").results[0]
    both = one._replace(
        scores=one.scores | other.scores,
        benchmarks=one.benchmarks | other.benchmarks,
        query_scores=one.query_scores | other.query_scores,
    )
    text = report([MODELS[0]._replace(results=[both])])
    assert re.findall(r"^## Results on (.*)$", text, re.MULTILINE) == ["sample", "xquad-r"]
    assert "figures/xquad-r-rank-distance.png" in text


def test_the_gate_is_a_command(tmp_path, caplog):
    for name, tree in {
        "scores": {"sample": {"none": {"map_multi": 0.7}}},
        "accepted": {"sample": {"none": {"map_multi": {"accepted": 0.8, "tolerance": 0.01}}}},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(tree))
    caplog.set_level("INFO")
    with pytest.raises(SystemExit, match="1"):
        gate(scores=tmp_path / "scores.json", accepted=tmp_path / "accepted.json")
    assert "falls short" in caplog.text
    gate(scores=tmp_path / "scores.json", accepted=_lowered(tmp_path))


def _lowered(folder):
    path = folder / "lower.json"
    path.write_text('{"sample": {"none": {"map_multi": {"accepted": 0.7, "tolerance": 0.0}}}}')
    return path


# --- results ----


def section(title, text=None):
    return (text or report(CENTERED)).split(f"### {title}")[1].split("\n#")[0]


def test_the_first_lines_say_who_is_best_who_is_not_and_how_sure_that_is():
    text = report(CENTERED)
    assert ("**0.750**, not the best (untuned 0.400, p = 0.002; crosslingual 0.800, p = 0.002).") in text
    assert "crosslingual 20.0, p = 1.000, no significant difference)" in text
    assert "**0.750**, the best (untuned 0.400" in report(MODELS[:2])
    assert "mAP over the pool of all languages is **0.750**, the best." in report(MODELS[:1])


def test_every_model_stands_in_both_tables():
    for title in ("Finding the answer", "Language bias"):
        rows = re.findall(r"^\| (candidate|untuned|crosslingual)\b", section(title), re.MULTILINE)
        assert rows == ["candidate", "untuned", "crosslingual"]
    assert "0.400 ▼" in section("Finding the answer")
    assert "**0.800** ▲" in section("Finding the answer")


def test_the_report_says_plainly_when_training_does_not_beat_centering():
    text = section("The control without training")
    assert (
        "In mAP over the pool of all languages, the trained candidate (0.750) is **worse than** the untuned encoder "
        "centered by the pool's means (0.780; p < 0.001)."
    ) in text
    assert (
        "In rank distance (lower is better), the trained candidate (20.0) is **not significantly different from**"
        in text
    )
    rows = re.findall(r"^\| (\w+).*?\| (as it is|centered by the pool's means) ", text, re.MULTILINE)
    assert len(rows) == 6
    better = [CENTERED[0], model("untuned", map_multi=0.4, centered={"map_multi": 0.5})]
    assert "(0.750) is better than the untuned encoder" in section(
        "The control without training", report(better)
    )


def test_the_marks_link_to_the_method():
    text = report(CENTERED)
    assert "[¹](#how-sure-the-figures-are)" in text
    method = section("How sure the figures are")
    assert "source questions" in method
    assert "Holm-corrected" in method


def test_a_judged_benchmark_has_its_own_measures_and_no_pictures():
    import numpy as np

    from hexapla.evaluation.metrics import average_headlines, score_queries
    from hexapla.evaluation.ranking import JudgedRanks

    found = score_queries(
        JudgedRanks(
            ("sw", "yo"), np.array(["1", "1"]), np.array([0, 1]), np.array([[1], [2]]), np.array([[1], [1]])
        )
    )
    made = MODELS[0].results[0]._replace(
        scores={"miracl": {"none": average_headlines(found)}},
        benchmarks={
            "miracl": {
                "format": "miracl", "languages": ["sw", "yo"], "queries": 2, "passages": 500,
                "centering": {"none": {"judged": {n: o.by_group() for n, o in found["judged"].items()}}},
            }
        },
        query_scores={"miracl": {"none": found}},
    )  # fmt: skip
    alone = MODELS[0]._replace(results=[made])
    text = report([alone]).split("## How to read the figures")[0]
    assert "nDCG@10 by the language of the query" in text
    assert "![" not in text
    assert "mAP" not in text
