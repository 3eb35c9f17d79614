"""Near matches against a plain definition, and on generated edits: what must be found, and what must not."""

import gzip
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import LANGUAGES, SAMPLE, SHARED, sample
from hexapla.benchmarks import lareqa
from hexapla.data.validate.contamination import MIN_PASSAGE_SHINGLES, MIN_QUESTION_SHINGLES, WIDTH, NgramIndex
from hexapla.text.normalize import normalize_text, normalize_texts

HELP = SHARED / "corpora" / "help-parallel.jsonl.gz"


def shingles(text):
    doubled = "".join(char * (1 + ("⺀" <= char < "힐")) for char in text)
    return {doubled[i : i + WIDTH] for i in range(len(doubled) - WIDTH + 1)}


def plain(text, known, kinds):
    """The overlap of two texts, None when they are too short for a near match."""
    one, other = shingles(text), shingles(known)
    asked = kinds.count("question")
    if min(len(one), len(other)) < (MIN_QUESTION_SHINGLES if asked == 2 else MIN_PASSAGE_SHINGLES):
        return None
    shared = len(one & other)
    if asked == 2:
        return shared / len(one | other)
    if asked == 1:
        return 1.0 if shared == len((one, other)[kinds.index("question")]) else 0.0
    return shared / min(len(one), len(other))


kind = st.sampled_from(["question", "passage"])
piece = st.sampled_from(
    [f"{word} " * 4 for word in ("abcdefg", "hijklmno", "pqrstu", "zyxwvut", "犬猫鳥魚", "1", "")]
)
texts = st.lists(st.tuples(st.lists(piece, max_size=6).map("".join), kind), min_size=1, max_size=8)


@given(texts, texts, st.sampled_from([0.5, 0.8, 0.95]))
def test_what_is_found_is_near_by_the_plain_definition(known, looked, least):
    """And long texts that are near are found. Of short ones, the sample that is indexed may miss some."""
    index = NgramIndex([text for text, _ in known], [kind for _, kind in known], least)
    for text, own in looked:
        found = {match.known: match for match in index.find([text], own)}
        for number, (other, kind) in enumerate(known):
            overlap = plain(text, other, [own, kind])
            if match := found.get(number):
                assert match.equal == (text == other)
                assert text == other or match.overlap == pytest.approx(overlap)
                assert match.overlap >= least
            else:
                assert text != other
                # A quarter of the shingles is looked at, and half of what is wanted has to be among these.
                long = min(len(shingles(text)), len(shingles(other))) >= 200
                assert not long or overlap is None or overlap < least


@pytest.mark.parametrize("times", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("length", [60, 120])
def test_a_piece_of_a_known_text_is_found_however_often_it_is_repeated(length, times):
    known = " ".join(f"word{i * i} and then" for i in range(40))
    index = NgramIndex([normalize_text(known)], ["passage"], 0.8)
    text = normalize_text(known[200 : 200 + length] * times)
    assert [match.known for match in index.find([text], "passage")] == [0]


def test_texts_of_a_batch_do_not_mix():
    """Each is found as it is by itself, whoever its neighbours are."""
    rng = random.Random(3)
    words = [row["passage"] for row in sample("en")[:40]]
    index = NgramIndex(normalize_texts(words), ["passage"] * len(words), 0.5)
    looked = normalize_texts(
        [words[rng.randrange(40)][rng.randrange(30) :] if i % 3 else "" for i in range(60)]
    )
    together = {(match.text, match.known, match.overlap) for match in index.find(looked, "passage")}
    alone = {(i, m.known, m.overlap) for i, text in enumerate(looked) for m in index.find([text], "passage")}
    assert together == alone
    assert len({text for text, *_ in together}) >= 40


def test_a_bound_of_one_leaves_equal_texts_alone():
    text = normalize_text(sample("en")[0]["passage"])
    index = NgramIndex([text, "short"], ["passage", "question"], 1.0)
    assert index.find([text + "more", text, "short"], "passage") == [(1, 0, 1.0, True), (2, 1, 1.0, True)]


@pytest.mark.parametrize(
    ("question", "known"),
    [
        ("What is the capital of Chad?", "What is the capital of Peru?"),
        (
            "What was the population of the city of Trier according to the census of 1900?",
            "What was the population of the city of Mainz according to the census of 1900?",
        ),
        ("Who painted the ceiling of the Sistine Chapel?", "Who painted the Sistine Chapel?"),
        ("Wann wurde der Dom zu Speyer geweiht?", "Wann wurde der Dom zu Worms geweiht?"),
    ],
)
def test_a_template_is_no_match(question, known):
    index = NgramIndex([normalize_text(known)], ["question"], 0.8)
    assert index.find([normalize_text(question)], "question") == []


def test_a_question_that_stands_in_a_passage_is_found():
    known = "Which river flows through the old town of Heidelberg?"
    index = NgramIndex([normalize_text(known)], ["question"], 0.8)
    (match,) = index.find([normalize_text(f"FAQ. {known} The Neckar does.")], "passage")
    assert (match.overlap, match.equal) == (1.0, False)
    assert (
        index.find([normalize_text(f"FAQ. {known.replace('old', 'new')} The Neckar does.")], "passage") == []
    )


# --- generated edits -----------------------------------------------------------------------------


def changed_word(sentences, rng):
    words = " ".join(sentences).split(" ")
    if len(words) > 5:
        words[rng.randrange(len(words))] = "Zebra"
        return " ".join(words)
    text = "".join(sentences)  # of a script without spaces
    at = rng.randrange(len(text))
    return f"{text[:at]}zebra{text[at + 2 :]}"


def dropped_sentence(sentences, rng):
    gone = rng.randrange(len(sentences))
    return " ".join(text for i, text in enumerate(sentences) if i != gone)


EDITS = {
    "a word changed": changed_word,
    "a sentence dropped": dropped_sentence,
    "cut at the end": lambda sentences, rng: " ".join(sentences)[: -len(" ".join(sentences)) // 5],
    "half of it": lambda sentences, rng: " ".join(sentences)[: len(" ".join(sentences)) // 2],
    "other punctuation": lambda sentences, rng: " – ".join(sentences).upper().replace(".", "!"),
    "something before": lambda sentences, rng: "As was told before: " * 5 + " ".join(sentences),
}


def known_texts(folder, languages):
    read = lareqa.load(folder, languages)
    paragraphs = {}
    for candidate in read.passages:
        paragraphs.setdefault((candidate.lang, candidate.context), []).append(candidate.text)
    texts = dict.fromkeys((text, "question") for text in (question.text for question in read.queries))
    for (_, context), sentences in paragraphs.items():
        texts |= dict.fromkeys((text, "passage") for text in (context, *sentences))
    keys = normalize_texts([text for text, _ in texts])
    held = [(key, kind) for key, (_, kind) in zip(keys, texts, strict=True) if key]
    return NgramIndex([key for key, _ in held], [kind for _, kind in held], 0.8), paragraphs


@pytest.fixture(scope="module")
def known(xquad_r):
    """What five languages of XQuAD-R hold, and their paragraphs."""
    return known_texts(xquad_r, ("ar", "de", "en", "th", "zh"))


@pytest.mark.parametrize("edit", EDITS)
def test_edited_paragraphs_of_a_benchmark_are_found(known, edit):
    index, paragraphs = known
    rng = random.Random(edit)
    edited = [EDITS[edit](sentences, rng) for sentences in paragraphs.values() if len(sentences) > 1]
    found = {match.text for match in index.find(normalize_texts(edited), "passage")}
    assert len(found) >= 0.995 * len(edited)


def test_help_pages_are_in_no_benchmark(known):
    if not HELP.is_file():
        pytest.skip(f"the help pages are not at {HELP}")
    index, _ = known
    with gzip.open(HELP, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line)["texts"] for _, line in zip(range(2000), lines, strict=False)]
    for column in ("question", "passage"):
        for lang in ("de", "en", "zh"):
            texts = normalize_texts([row[lang][column] for row in rows if lang in row])
            assert index.find(texts, column) == []


def test_the_sample_is_not_in_its_benchmark():
    index, _ = known_texts(SAMPLE / "benchmark", ())
    for lang in LANGUAGES:
        for column in ("question", "passage"):
            assert index.find(normalize_texts([row[column] for row in sample(lang)]), column) == []
