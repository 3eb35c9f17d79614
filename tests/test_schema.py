import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexapla.schema import BenchmarkPassage, BenchmarkQuery, ParallelBenchmark, first_line, suggest


@given(st.text(max_size=400))
def test_the_first_line_of_an_error_is_one_short_line_of_its_message_or_else_its_type(message):
    line = first_line(ValueError(message))
    assert len(line) <= 160
    assert len(line.splitlines()) == 1
    assert line in message if message.strip() else line == "ValueError"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("trian", "did you mean 'train'?"),
        ("xyz", "known are train, report"),
        ("train", "did you mean 'train'?"),
    ],
)
def test_a_name_that_is_not_known_gets_the_nearest_or_all(name, words):
    assert suggest(name, iter(["train", "report"])) == words


def test_a_query_is_answered_by_its_passages_in_every_language():
    queries = [
        BenchmarkQuery("a", "de", "A?", 0),
        BenchmarkQuery("b", "de", "B?", 0),
        BenchmarkQuery("a", "en", "a?", 1),
    ]
    passages = [BenchmarkPassage("de", "Eins.", "Eins. Zwei."), BenchmarkPassage("en", "One.", "One. Two.")]
    whole = ParallelBenchmark(("de", "en"), queries, passages)
    assert whole.relevant == {"a": [0, 1], "b": [0]}
    assert whole.texts == ["Eins.", "One."]
    in_context = ParallelBenchmark(("de", "en"), queries, passages, "sentence_in_context")
    assert in_context.texts == [("Eins.", "Eins. Zwei."), ("One.", "One. Two.")]
