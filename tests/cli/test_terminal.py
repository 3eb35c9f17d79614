import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.cli import terminal


@given(st.text())
def test_an_escaped_text_holds_nothing_that_a_terminal_obeys(text):
    shown = terminal.escaped(text)
    for char in shown:
        assert unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.category(char) != "Cf" or char in "\u200c\u200d"
    assert terminal.escaped(shown) == shown


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
    assert terminal.escaped(text) == shown


@given(st.text(alphabet="ab 中文ไ้ทยhé\u0301한", max_size=80), st.integers(2, 30))
def test_wrapping_keeps_all_but_spaces_and_every_line_fits(text, columns):
    lines = terminal.wrapped(text, columns, 1000)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(terminal.width(line) <= columns for line in lines)


@given(st.text(alphabet="ab 中文ไทย", min_size=60, max_size=90))
def test_widths_agree_with_wcwidth(text):
    wcwidth = pytest.importorskip("wcwidth")
    assert terminal.width(text) == wcwidth.wcswidth(text)
