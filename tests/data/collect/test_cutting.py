"""Cutting: the answer survives, the length is kept, and what remains is one stretch of the passage."""

from hypothesis import given
from hypothesis import strategies as st

from hexapla.data.collect.cutting import cut
from hexapla.text import sentences

PLOT = "A cat sleeps. A dog runs away. It rains all day. The cat wakes up at noon. All is well."
passages = st.lists(st.text("abc é.!? \n。", min_size=1, max_size=30), min_size=1, max_size=12).map(" ".join)


@given(passages, st.data(), st.integers(1, 120))
def test_a_cut_holds_the_answer_and_keeps_the_length(passage: str, data: st.DataObject, longest: int) -> None:
    low, high = sorted(data.draw(st.tuples(*[st.integers(0, len(passage))] * 2)))
    answer = passage[low:high].strip()
    kept = cut(passage, answer, longest)
    assert kept == kept.strip()
    assert kept in passage
    assert answer in kept
    assert len(kept) <= max(longest, len(answer))
    if len(passage.strip()) <= longest:
        assert kept == passage.strip()


@given(passages, st.integers(1, 120))
def test_without_an_answer_the_beginning_remains(passage: str, longest: int) -> None:
    kept = cut(passage, "", longest)
    assert passage.strip().startswith(kept)
    assert cut(passage, "not there", longest) == kept


def test_what_remains_are_whole_sentences_on_both_sides_of_the_answer() -> None:
    whole = [sentence.strip() for sentence in sentences.split(PLOT)]
    assert cut(PLOT, "rains", 20) == whole[2]
    assert cut(PLOT, "rains", 43) == " ".join(whole[2:4])
    assert cut(PLOT, "rains", 60) == " ".join(whole[1:4])
    assert cut(PLOT, "well", 40) == " ".join(whole[3:])
    assert cut(PLOT, "", 35) == " ".join(whole[:2])
    # One side has no room left, the other has.
    assert cut(PLOT, "dog", 33) == " ".join(whole[0:2])
    assert cut(PLOT, "away. It", 40) == " ".join(whole[1:3])


def test_a_sentence_that_is_too_long_is_cut_between_words() -> None:
    passage = f"{'before ' * 50}the answer {'after ' * 50}"
    kept = cut(passage, "the answer", 60)
    assert "the answer" in kept
    assert set(kept.split()) == {"before", "the", "answer", "after"}
    assert 45 <= len(kept) <= 60
    assert cut(passage, "before " * 20 + "before", 60) == ("before " * 21).strip()
    assert len(cut("x" * 500, "", 100)) == 100


def test_an_answer_counts_where_it_stands_first() -> None:
    assert cut("No cat. " + "A dog. " * 20 + "A cat.", "cat", 10) == "No cat."
