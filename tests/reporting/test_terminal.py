import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from hexapla.reporting import terminal


@given(st.text())
def test_an_escaped_text_holds_nothing_that_a_terminal_obeys(text):
    shown = terminal.escape(text)
    for char in shown:
        assert unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.category(char) != "Cf" or char in "\u200c\u200d"
    assert terminal.escape(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\u202eb\u2066c\u200f", "a\\u202eb\\u2066c\\u200f"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\ud800", "\\ud800"),
        ("می\u200cخواهم क्\u200dष 你好 ไทย é", "می\u200cخواهم क्\u200dष 你好 ไทย é"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_is_escaped_and_what_stays(text, shown):
    assert terminal.escape(text) == shown


@given(st.text(alphabet="ab 中文ไ้ทยhé\u0301한", max_size=80), st.integers(2, 30))
def test_wrapping_keeps_all_but_spaces_and_every_line_fits(text, columns):
    lines = terminal.wrap(text, columns, 1000)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(cell_len(line) <= columns for line in lines)


@given(st.text(alphabet="ab 中文ไทย", min_size=1), st.integers(2, 30), st.integers(1, 5))
def test_a_text_that_is_cut_counts_what_is_left_out(text, columns, lines):
    whole, cut = terminal.wrap(text, columns, 1000), terminal.wrap(text, columns, lines)
    if len(whole) <= lines:
        assert cut == whole
        return
    last, _, left = cut[-1].rpartition(" … +")
    assert len(cut) == lines
    assert cut[:-1] == whole[: lines - 1]
    assert whole[lines - 1].startswith(last)
    assert len(last) + int(left.replace(",", "")) == sum(map(len, whole[lines - 1 :]))


def test_a_table_that_is_piped_is_neither_wrapped_nor_cut(capsys):
    long = "文" * 300
    terminal.print_table(["name", "n"], [["a\x1b[2Jb", "1"], [long, "2,000"]], "lr")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in (lines[0], *lines[2:])] == [
        ["name", "n"], ["a\\x1b[2Jb", "1"], [long, "2,000"],
    ]  # fmt: skip
    assert {cell_len(line) for line in lines} == {600 + 2 + 5}


def test_a_table_as_text_keeps_its_figures_whole_and_its_titles_harmless():
    cells = [f"0.{number} [0.{number}, 0.{number}]" for number in range(100, 130)]
    text = terminal.render_table([f"na\x1b[2Jme\n{number}" for number in range(30)], [cells], "r" * 30)
    assert text.splitlines()[-1].split("  ") == cells
    assert "\x1b" not in text
    assert text.splitlines()[1].split() == [str(number) for number in range(30)]


def test_a_column_with_a_limit_is_wrapped_by_the_width_of_its_cells(capsys):
    terminal.print_table(["name", "n"], [["文" * 7, "1"]], "lr", [6, None])
    assert capsys.readouterr().out.splitlines()[2:] == ["文文文  1", "文文文", "文"]


def test_two_columns_keep_their_widths_and_their_direction():
    lines = terminal.join_columns(["你好", "ab"], ["مرحبا"], 5)
    assert lines == ["\u2068你好 \u2069 │ \u2068مرحبا\u2069", "\u2068ab   \u2069 │"]
