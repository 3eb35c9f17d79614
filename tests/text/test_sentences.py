"""Sentences: nothing is lost or added, and a full stop does not always end one."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hexapla.text import sentences

LANGUAGES = ("ar", "de", "el", "en", "hi", "ja", "th", "tr", "zh", "zh-Hant", "xx", "")
# Where splitters trip: ends of sentences, quotes, brackets, kinds of white space, letters outside the plane.
stops = st.text(st.sampled_from("aB1 .!?…;:'\"“”()[]。！？।؟\n\r\t\x0b\x85\u2028\u3000\u200b\u00adé़😀ה"))


# sentencex panics at white space of more than a byte between a lone capital and a full stop.
@example("plan B\u00a0. Then", "en")
@example("B\u3000.", "ja")
@example("É. A\x85.\u2028I\u2003. B", "de")
@given(st.text() | stops, st.sampled_from(LANGUAGES))
def test_the_sentences_joined_are_the_text(text: str, lang: str) -> None:
    pieces = sentences.split(text, lang)
    assert "".join(pieces) == text
    assert all(pieces)
    # White space stands after a sentence, but for what stands before the first.
    assert all(piece == piece.lstrip() for piece in pieces[1:])


@pytest.mark.parametrize(
    ("text", "lang", "wanted"),
    [
        ("Mr. Fox sleeps.  Then\nhe runs.", "en", ["Mr. Fox sleeps.  ", "Then\nhe runs."]),
        (" One. \n\n Two!", "en", [" One. \n\n ", "Two!"]),
        ("猫は眠る。犬は走る。", "ja", ["猫は眠る。", "犬は走る。"]),
        ("बिल्ली सोती है। कुत्ता दौड़ता है।", "hi", ["बिल्ली सोती है। ", "कुत्ता दौड़ता है।"]),
        ("猫睡了。狗跑了！", "zh-Hant", ["猫睡了。", "狗跑了！"]),
        (
            "The plan is B\u00a0.\u3000Then\u00a0he runs.",
            "en",
            ["The plan is B\u00a0.\u3000", "Then\u00a0he runs."],
        ),
        ("  ", "en", ["  "]),
        ("", "en", []),
    ],
)
def test_sentences_of_several_languages(text: str, lang: str, wanted: list[str]) -> None:
    assert sentences.split(text, lang) == wanted
