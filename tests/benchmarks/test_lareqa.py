import copy
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import LANGUAGES, SAMPLE
from hexapla.benchmarks import lareqa as benchmarks
from hexapla.schema import UserError
from stand_ins import lareqa, mteb, paragraph

PARAGRAPH = {
    "context": "One is here. Two is there.",
    "sentences": ["One is here.", "Two is there."],
    "sentence_breaks": [[0, 12], [13, 26]],
    "qas": [{"id": "q1", "question": "Where is two?", "answers": [{"text": "there", "answer_start": 20}]}],
}


def written(tmp_path, one, lang="en"):
    (tmp_path / f"{lang}.json").write_text(lareqa(one))
    return tmp_path


def test_the_relevant_candidate_holds_the_start_of_the_answer(tmp_path):
    written(tmp_path, PARAGRAPH, "de")
    read = benchmarks.load(written(tmp_path, PARAGRAPH))
    assert read.languages == ("de", "en")
    assert [read.passages[q.passage].text for q in read.queries] == ["Two is there."] * 2
    assert read.relevant == {"q1": [1, 3]}
    assert benchmarks.load(tmp_path, ["en"]).languages == ("en",)


def test_the_sample_has_a_candidate_a_question_in_each_language():
    read = benchmarks.load(SAMPLE / "benchmark")
    assert read.languages == LANGUAGES
    assert len(read.queries) == len(read.passages) == 84 * 11
    assert all(read.passages[q.passage].lang == q.lang for q in read.queries)
    assert all(len(found) == 11 for found in read.relevant.values())


def test_published_counts_of_xquad_r(xquad_r):
    read = benchmarks.load(xquad_r)
    counts = {lang: sum(c.lang == lang for c in read.passages) for lang in read.languages}
    assert counts == {
        "ar": 1222, "de": 1276, "el": 1234, "en": 1180, "es": 1215, "hi": 1244, "ru": 1219, "th": 852,
        "tr": 1167, "vi": 1209, "zh": 1196,
    }  # fmt: skip
    assert len(read.queries) == 13090
    assert len(read.passages) == 13014
    assert {len(found) for found in read.relevant.values()} == {11}


def test_the_two_slips_of_xquad_r_are_told_and_taken(xquad_r, caplog):
    benchmarks.load(xquad_r)
    (message,) = caplog.messages
    assert "tr.json: 2 of 1167 sentences differ from the context, first: paragraph 49" in message


def test_the_texts_are_sentences_or_sentences_in_their_context(tmp_path):
    written(tmp_path, PARAGRAPH)
    assert benchmarks.load(tmp_path).texts == PARAGRAPH["sentences"]
    pairs = benchmarks.load(tmp_path, passage_unit="sentence_in_context").texts
    assert pairs == [(sentence, PARAGRAPH["context"]) for sentence in PARAGRAPH["sentences"]]


def test_equal_sentences_are_candidates_each(tmp_path):
    same = {**PARAGRAPH, "qas": []}
    tree = {"data": [{"title": "t", "paragraphs": [PARAGRAPH, same, same]}]}
    (tmp_path / "en.json").write_text(json.dumps(tree))
    read = benchmarks.load(tmp_path)
    assert len(read.passages) == 6
    assert read.relevant == {"q1": [1]}


# Question ids by language, as in MLQA-R: each in two to four of the languages.
PARTLY = {"ar": "bc", "de": "abc", "en": "abcd", "vi": "ad"}


def test_questions_that_some_languages_lack_as_in_mlqa_r(tmp_path):
    for lang, ids in PARTLY.items():
        qas = [(name, number % 2) for number, name in enumerate(ids)]
        (tmp_path / f"{lang}.json").write_text(lareqa(*(paragraph(qa) for qa in qas)))
    read = benchmarks.load(tmp_path)
    assert [question.id for question in read.queries] == list("".join(PARTLY.values()))
    for name in "abcd":
        langs = [lang for lang, ids in PARTLY.items() if name in ids]
        assert [read.passages[i].lang for i in read.relevant[name]] == langs
        assert all(read.passages[i].text.split()[0] in ("One", "Two") for i in read.relevant[name])
    two = benchmarks.load(tmp_path, ["vi", "de"])
    assert two.languages == ("vi", "de")
    assert {name: len(found) for name, found in two.relevant.items()} == {"a": 2, "b": 1, "c": 1, "d": 1}


def test_questions_of_one_language_each_are_taken_and_told(tmp_path, caplog):
    for lang in ("de", "en"):
        (tmp_path / f"{lang}.json").write_text(lareqa(paragraph((f"{lang}-1", 0))))
    assert len(benchmarks.load(tmp_path).queries) == 2
    assert "no question is in two languages" in caplog.text
    caplog.clear()
    benchmarks.load(tmp_path, ["de"])
    assert not caplog.messages


@given(st.integers(0, 3), st.integers(0, 3))
def test_up_to_one_in_a_hundred_offsets_may_be_off(sentences, answers):
    """300 paragraphs of one sentence and one question, of which some are not what the context says."""
    tree = json.loads(lareqa(*(paragraph((f"q{n}", 0), sentences=("So it is.",)) for n in range(300))))
    paragraphs = tree["data"][0]["paragraphs"]
    for number in range(sentences):
        paragraphs[number]["sentences"] = ["So it was."]
    for number in range(answers):
        paragraphs[-1 - number]["qas"][0]["answers"][0]["text"] = "was"
    with TemporaryDirectory() as folder:
        (Path(folder) / "en.json").write_text(json.dumps(tree))
        assert len(benchmarks.load(Path(folder)).passages) == 300
        paragraphs[3]["sentences"], paragraphs[4]["sentences"] = ["Or not."], ["Or not."]
        paragraphs[5]["sentences"], paragraphs[6]["sentences"] = ["Or not."], ["Or not."]
        (Path(folder) / "en.json").write_text(json.dumps(tree))
        with pytest.raises(UserError, match=rf"so it is for {sentences + 4} of 300 sentences"):
            benchmarks.load(Path(folder))


def test_what_a_folder_is(tmp_path):
    assert benchmarks.detect(SAMPLE / "benchmark") == "lareqa"
    assert benchmarks.detect(mteb(tmp_path / "mteb", "sw")) == "miracl"
    (tmp_path / "miracl" / "miracl-v1.0-yo").mkdir(parents=True)
    assert benchmarks.detect(tmp_path / "miracl") == "miracl"
    (tmp_path / "miracl" / "notes.json").write_text("{}")
    assert benchmarks.detect(tmp_path / "miracl") == "miracl"
    (tmp_path / "miracl" / "de.json").write_text("{}")
    with pytest.raises(UserError, match="put one of the two elsewhere"):
        benchmarks.detect(tmp_path / "miracl")
    with pytest.raises(
        UserError, match=r"no benchmark; looked for <lang>\.json .* miracl-v1\.0-<lang> or <lang>-corpus"
    ):
        benchmarks.detect(tmp_path)
    with pytest.raises(UserError, match="no such benchmark folder"):
        benchmarks.detect(tmp_path / "gone")


def changed(path, value):
    whole = copy.deepcopy(PARAGRAPH)
    node = whole
    for key in path[:-1]:
        node = node[key]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return whole


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (changed(["sentence_breaks"], None), "not LAReQA format, KeyError: 'sentence_breaks'"),
        (changed(["sentence_breaks"], [[0, 12]]), "1 sentence_breaks for 2 sentences"),
        (changed(["qas", 0, "answers", 0, "answer_start"], 99), "question q1: answer_start 99 is in 0"),
        (changed(["qas"], PARAGRAPH["qas"] * 2), "question id 'q1' occurs twice"),
        (changed(["qas", 0, "answers"], []), "not LAReQA format, IndexError"),
        (changed(["qas"], []), "holds no questions"),
        (changed(["qas", 0, "question"], " "), "question q1: its text is empty"),
        (
            changed(["qas", 0, "answers", 0, "answer_start"], 21),
            "question q1: 'there' is not at 21; so",
        ),
        (changed(["qas", 0, "answers", 0, "answer_start"], 12), "question q1: answer_start 12 is in 0"),
        (
            changed(["sentences", 1], "Two is where?"),
            "paragraph 1: 'Two is where?' is not the text at 13, 26",
        ),
        (changed(["sentences", 1], " "), "paragraph 1: a sentence is empty (sentence_breaks 13, 26)"),
        (changed(["sentence_breaks", 1], [13, 27]), "sentence_breaks 13, 27 are out of order or beyond the"),
        (changed(["sentence_breaks", 1], [11, 26]), "sentence_breaks 11, 26 are out of order or beyond the"),
        (changed(["sentence_breaks", 1], ["13", "26"]), "not LAReQA format, TypeError"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, broken, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        benchmarks.load(written(tmp_path, broken))
    assert "en.json: " in str(caught.value)


def test_missing_folder_language_and_broken_json(tmp_path):
    with pytest.raises(UserError, match="no such benchmark folder"):
        benchmarks.load(tmp_path / "gone")
    with pytest.raises(UserError, match="holds no"):
        benchmarks.load(tmp_path)
    (tmp_path / "en.json").write_text('{"data": [')
    with pytest.raises(UserError, match=r"en\.json:1: broken JSON"):
        benchmarks.load(tmp_path)
    with pytest.raises(UserError, match=r"language 'fr' is missing; it holds en"):
        benchmarks.load(tmp_path, ["fr"])


def test_json_that_is_no_language_is_refused_and_a_license_is_not(tmp_path):
    written(tmp_path, PARAGRAPH)
    written(tmp_path, PARAGRAPH, "zh-Hant")
    for name in ("LICENSE", "README.md"):
        (tmp_path / name).write_text("yours")
    assert tuple(benchmarks.files(tmp_path)) == benchmarks.load(tmp_path).languages == ("en", "zh-Hant")
    written(tmp_path, PARAGRAPH, "notes")
    with pytest.raises(UserError, match=r"notes\.json: 'notes' is no language code"):
        benchmarks.load(tmp_path, ["en"])
    (tmp_path / "notes.json").unlink()
    (tmp_path / "de.json").write_text("[1, 2]")
    with pytest.raises(UserError, match=r"de\.json: its articles: not LAReQA format, TypeError"):
        benchmarks.load(tmp_path)
    (tmp_path / "de.json").write_text("")
    with pytest.raises(UserError, match=r"de\.json:1: broken JSON"):
        benchmarks.load(tmp_path)
