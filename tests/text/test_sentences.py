"""Sentences: nothing is lost or added, and a full stop does not always end one."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hexapla.text import sentences
from hexapla.text.normalize import find_answer

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


# --- long passages -------------------------------------------------------------------------------

PLOT = "A cat sleeps. A dog runs away. It rains all day. The cat wakes up at noon. All is well."
passages = st.lists(st.text("abc é.!? \n。", min_size=1, max_size=30), min_size=1, max_size=12).map(" ".join)


@given(passages, st.data(), st.integers(1, 120))
def test_a_cut_holds_the_answer_and_keeps_the_length(passage: str, data: st.DataObject, longest: int) -> None:
    low, high = sorted(data.draw(st.tuples(*[st.integers(0, len(passage))] * 2)))
    answer = passage[low:high].strip()
    kept = sentences.truncate(passage, answer, longest)
    assert kept == kept.strip()
    assert kept in passage
    if find_answer(passage, answer, "en"):
        assert find_answer(kept, answer, "en")
    assert len(kept) <= max(longest, len(answer))
    if len(passage.strip()) <= longest:
        assert kept == passage.strip()


@given(passages, st.integers(1, 120))
def test_without_an_answer_the_beginning_remains(passage: str, longest: int) -> None:
    kept = sentences.truncate(passage, "", longest)
    assert passage.strip().startswith(kept)
    assert sentences.truncate(passage, "not there", longest) == kept


def test_what_remains_are_whole_sentences_on_both_sides_of_the_answer() -> None:
    whole = [sentence.strip() for sentence in sentences.split(PLOT)]
    assert sentences.truncate(PLOT, "rains", 20) == whole[2]
    assert sentences.truncate(PLOT, "rains", 43) == " ".join(whole[2:4])
    assert sentences.truncate(PLOT, "rains", 60) == " ".join(whole[1:4])
    assert sentences.truncate(PLOT, "well", 40) == " ".join(whole[3:])
    assert sentences.truncate(PLOT, "", 35) == " ".join(whole[:2])
    # One side has no room left, the other has.
    assert sentences.truncate(PLOT, "dog", 33) == " ".join(whole[0:2])
    assert sentences.truncate(PLOT, "away. It", 40) == " ".join(whole[1:3])


def test_a_sentence_that_is_too_long_is_cut_between_words() -> None:
    passage = f"{'before ' * 50}the answer {'after ' * 50}"
    kept = sentences.truncate(passage, "the answer", 60)
    assert "the answer" in kept
    assert set(kept.split()) == {"before", "the", "answer", "after"}
    assert 45 <= len(kept) <= 60
    assert sentences.truncate(passage, "before " * 20 + "before", 60) == ("before " * 21).strip()
    assert len(sentences.truncate("x" * 500, "", 100)) == 100


def test_an_answer_counts_where_it_stands_first() -> None:
    assert sentences.truncate("No cat. " + "A dog. " * 20 + "A cat.", "cat", 10) == "No cat."


def test_a_cut_is_made_around_the_answer_and_not_around_a_part_of_a_word() -> None:
    assert sentences.truncate("It was 1945. There were 4.", "4", 14) == "There were 4."
