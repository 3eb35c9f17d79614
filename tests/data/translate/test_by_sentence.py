"""Texts cut into sentences, and translations put together again."""

from hypothesis import given
from hypothesis import strategies as st

from hexapla.data.translate.by_sentence import translate_by_sentence

PARTS = [
    "The cat sleeps.",
    "Is it so?",
    "No!",
    "1,994.",
    "-- --",
    "Dr. Who came.",
    "(It did.)",
    "日本。",
    "\u200f",
    "e\u0301",
]
SPACES = [" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2028", " \n "]


def shout(cores):
    return [core.upper() for core in cores]


@given(st.lists(st.tuples(st.lists(st.tuples(st.sampled_from(PARTS), st.sampled_from(SPACES)), max_size=6),
                          st.sampled_from(["", *SPACES])), max_size=4))  # fmt: skip
def test_what_is_not_a_sentence_stays_and_equal_ones_are_seen_once(drawn) -> None:
    texts = [before + "".join(part + space for part, space in parts) for parts, before in drawn]
    seen: list[str] = []

    def spy(cores):
        seen.extend(cores)
        return shout(cores)

    translated = translate_by_sentence(texts, "de", spy)
    # Of these scripts' texts, to change all sentences is to change the text.
    assert translated == [(text.upper(),) if text.strip() else () for text in texts]
    assert len(seen) == len(set(seen))
    assert all(core == core.strip() and len(core.splitlines()) == 1 for core in seen)
    assert all(any(map(str.isalpha, core)) for core in seen)


@given(st.text(max_size=40))
def test_any_text_comes_back_from_an_engine_that_changes_nothing(text) -> None:
    assert translate_by_sentence([text], "de", list) == (
        [(text,)] if text.strip() and "\0" not in text else [()]
    )


def test_one_sentence_without_translation_is_a_text_without() -> None:
    known = {"It runs.": "Es rennt.", "It sleeps.": "Es schläft."}
    texts = ["It runs. It sleeps.", "It runs. It sings.", "It sings.", "It runs."]
    translated = translate_by_sentence(texts, "de", lambda cores: [known.get(core) for core in cores])
    assert translated == [("Es rennt. Es schläft.",), (), (), ("Es rennt.",)]


def test_no_text_has_no_translation() -> None:
    assert translate_by_sentence(["", " \n", "\ud800 x", "a\0b"], "de", shout) == [()] * 4


def test_numbers_stay_without_an_engine() -> None:
    assert translate_by_sentence(["1994", "3.14 %", "1994"], "de", lambda _: 1 / 0) == [
        ("1994",),
        ("3.14 %",),
        ("1994",),
    ]


def test_chinese_has_no_spaces_between_sentences_and_thai_has() -> None:
    texts = ["It runs. It sleeps.\nIt runs. ABC runs. It runs."]
    known = {"It runs.": "跑。", "It sleeps.": "睡。", "ABC runs.": "ABC"}
    find = known.__getitem__
    assert translate_by_sentence(texts, "zh", lambda cores: list(map(find, cores))) == [
        ("跑。睡。\n跑。ABC 跑。",)
    ]
    assert translate_by_sentence(["It runs. It runs. "], "ja", lambda cores: list(map(find, cores))) == [
        ("跑。跑。 ",)
    ]
    assert translate_by_sentence(["It runs. It runs."], "th", lambda _: ["วิ่ง"]) == [("วิ่ง วิ่ง",)]
