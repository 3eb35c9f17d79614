import numpy as np
import pytest
from markdown_it import MarkdownIt

from hexapla.evaluation import statistics
from hexapla.evaluation.metrics import METRICS, SHORT, choose_known
from hexapla.reporting import result_tables
from hexapla.reporting.result_tables import Model
from worlds import LANGUAGES, model, result


def test_titles_tell_the_sampler_once():
    assert model("monolingual").title == "monolingual"
    assert model("candidate", sampler="hybrid", alpha=0.25).title == "candidate (hybrid, α 0.25)"
    assert model("candidate", sampler="untuned").title == "candidate (untuned)"
    by_example = model("candidate", sampler="hybrid", alpha=0.5)
    by_example.results[0].card["training"]["mixing"] = "example"
    assert by_example.title == "candidate (hybrid, α 0.5 by example)"
    parallel = model("candidate", sampler="parallel", alpha=None)
    parallel.results[0].card["training"]["languages_per_id"] = 8
    assert parallel.title == "candidate (parallel, 8 languages)"
    elsewhere = model("candidate").results[0]._replace(card={"name": "LaBSE"})
    assert Model("LaBSE", [elsewhere]).title == "LaBSE"


@pytest.mark.parametrize(
    "text",
    [
        "a|b",
        "**x**",
        "<script>alert(1)</script>",
        "[a](javascript:x)",
        "a_b_c",
        "`x",
        "1 &lt; 2",
        "\\",
        "![i](p)",
    ],
)
def test_plain_text_comes_out_as_it_went_in(text):
    html = MarkdownIt("commonmark", {"html": False}).enable("table")
    rendered = html.parseInline(result_tables.escape(text))[0].children
    assert all(token.type == "text" or token.type == "text_special" for token in rendered)
    assert "".join(token.content for token in rendered) == text
    row = html.parse(result_tables.table(["h"], [[result_tables.escape(text)]]))
    assert [t.type for t in row].count("td_open") == 1


def shown(models, measures):
    judged = [each.judged() for each in models]
    board = statistics.compare_models("sample", judged).board
    return board, statistics.compute_contrasts("sample", judged[0], judged[1:], measures)


def test_the_best_of_each_column_is_marked_and_what_is_significant_has_a_sign():
    measures = [METRICS["map_multi"], METRICS["rank_distance"], METRICS["map_mono"]]
    models = [
        model("candidate", map_multi=0.7, rank_distance=20.0),
        model("untuned", map_multi=0.6, rank_distance=9.0),
    ]
    rows = result_tables.board(*shown(models, measures), measures, 3)
    assert rows == [
        ["candidate (hybrid, α 0.5)", "**0.700**", "20.0", "**0.500**"],
        ["untuned", "0.600 ▼", "**9.0** ▲", "**0.500**"],
    ]


def test_intervals_and_seeds():
    measures = [METRICS["map_multi"]]
    one = model("candidate", map_multi=0.7)
    two = Model("m", [result("m", map_multi=0.6), result("m", seed=8, map_multi=0.8)])
    board, _ = shown([one, two], measures)
    assert result_tables.intervals(board, measures) == [
        ["mAP multi", "0.700 [0.700, 0.700]", "0.700 [0.700, 0.700] ± 0.141"]
    ]


def test_differences_show_their_p_and_are_bold_where_it_is_small():
    measures = list(METRICS.values())[:3]
    models = [
        model("candidate", map_multi=0.7, map_mono=None),
        model("untuned", map_multi=0.6, map_mono=None),
    ]
    _, tests = shown(models, measures)
    cells = {row[0]: row[1] for row in result_tables.deltas(tests, measures)}
    assert cells["mAP multi"] == "**+0.100 (p < 0.001)**"
    assert cells["mAP cross"] == "0.000 (p = 1.000)"
    assert cells["mAP mono"] == "–"


def test_the_terminal_table_has_a_line_for_each_model():
    models = [model("candidate"), model("untuned", map_multi=0.1)]
    short = choose_known(SHORT, models[0].results[0].scores["sample"]["none"])
    board, tests = shown(models, list(METRICS.values())[:12])
    text = result_tables.plain_table("sample", board, tests, short, 3)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[3:5]] == ["candidate", "untuned"]
    assert max(map(len, lines)) <= 120
    assert "0.100 ▼" in text
    assert "\\" not in text
    assert "mAP cross" in result_tables.plain_intervals(board, list(METRICS.values())[:3])


def test_the_matrix_has_questions_as_rows():
    detail = model("candidate", map_mono=0.9, map_cross=0.4).detail("sample")
    matrix = result_tables.pair_matrix(LANGUAGES, detail)
    assert matrix.shape == (3, 3)
    np.testing.assert_allclose(np.diag(matrix), 0.9)
    detail["cross"]["map"]["de-en"] = None
    assert np.isnan(result_tables.pair_matrix(LANGUAGES, detail)[0, 1])
    assert np.isnan(result_tables.matrix([[None, 0.5]])[0, 0])
