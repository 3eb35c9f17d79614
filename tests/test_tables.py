import numpy as np
import pytest
from markdown_it import MarkdownIt

from hexapla import tables
from hexapla.scoreboard import MEASURES
from worlds import model


def test_titles_tell_the_sampler_once():
    assert model("monolingual").title == "monolingual"
    assert model("candidate", sampler="hybrid", alpha=0.25).title == "candidate (hybrid, α 0.25)"
    assert model("candidate", sampler="untuned").title == "candidate (untuned)"


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
    rendered = html.parseInline(tables.plain(text))[0].children
    assert all(token.type == "text" or token.type == "text_special" for token in rendered)
    assert "".join(token.content for token in rendered) == text
    row = html.parse(tables.table(["h"], [[tables.plain(text)]]))
    assert [t.type for t in row].count("td_open") == 1


def test_the_best_of_each_column_is_marked():
    models = [model("candidate", map_multi=0.7), model("untuned", map_multi=0.6)]
    measures = [MEASURES["map_multi"]]
    rows = tables.board("sample", models, measures, 3)
    assert rows == [["candidate (hybrid, α 0.5)", "**0.700**"], ["untuned", "0.600"]]


def test_deltas_follow_the_shown_digits_and_the_direction():
    models = [
        model("candidate", map_multi=0.7004, rank_distance=20.0, own_language_top10=0.3, map_mono=None),
        model("untuned", map_multi=0.6996, rank_distance=30.0, own_language_top10=0.6, map_mono=0.5),
    ]
    (row,) = tables.deltas("sample", models, 3)
    cells = dict(zip(MEASURES, row[1:], strict=True))
    assert cells["map_multi"] == "0.000"
    assert cells["rank_distance"] == "**−10.0**"
    assert cells["own_language_top10"] == "**−0.300**"
    assert cells["map_mono"] == "–"


def test_the_terminal_table_has_a_line_for_each_model():
    text = tables.plain_table([model("candidate"), model("untuned", map_multi=0.1)])
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[3:5]] == ["candidate", "untuned"]
    assert max(map(len, lines)) <= 120
    assert "0.100" in text
    assert "\\" not in text


def test_the_matrix_has_questions_as_rows():
    detail = model("candidate").languages["sample"]
    matrix = tables.pair_matrix(detail)
    languages = detail["languages"]
    assert matrix.shape == (3, 3)
    assert matrix[0, 0] == detail["mono"]["map"][languages[0]]
    assert matrix[0, 1] == detail["cross"]["map"][f"{languages[0]}-{languages[1]}"]
    detail["cross"]["map"][f"{languages[0]}-{languages[1]}"] = None
    assert np.isnan(tables.pair_matrix(detail)[0, 1])
