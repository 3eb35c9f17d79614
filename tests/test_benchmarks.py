import copy
import json
import re

import pytest

from conftest import LANGUAGES, ROOT, SAMPLE
from hexapla import benchmarks
from hexapla.records import Mistake

XQUAD_R = ROOT.parent / "shared" / "benchmarks" / "xquad-r"
PARAGRAPH = {
    "context": "One is here. Two is there.",
    "sentences": ["One is here.", "Two is there."],
    "sentence_breaks": [[0, 12], [13, 26]],
    "qas": [{"id": "q1", "question": "Where is two?", "answers": [{"text": "there", "answer_start": 20}]}],
}


def written(tmp_path, paragraph, lang="en"):
    tree = {"data": [{"title": "t", "paragraphs": [paragraph]}]}
    (tmp_path / f"{lang}.json").write_text(json.dumps(tree))
    return tmp_path


def test_the_relevant_candidate_holds_the_start_of_the_answer(tmp_path):
    written(tmp_path, PARAGRAPH, "de")
    read = benchmarks.load(written(tmp_path, PARAGRAPH))
    assert read.languages == ("de", "en")
    assert [read.candidates[q.candidate].text for q in read.questions] == ["Two is there."] * 2
    assert read.relevant == {"q1": [1, 3]}
    assert benchmarks.load(tmp_path, ["en"]).languages == ("en",)


def test_the_sample_has_a_candidate_a_question_in_each_language():
    read = benchmarks.load(SAMPLE / "benchmark")
    assert read.languages == LANGUAGES
    assert len(read.questions) == len(read.candidates) == 84 * 11
    assert all(read.candidates[q.candidate].lang == q.lang for q in read.questions)
    assert all(len(found) == 11 for found in read.relevant.values())


@pytest.mark.skipif(not XQUAD_R.is_dir(), reason="XQuAD-R is not at hand")
def test_published_counts_of_xquad_r():
    read = benchmarks.load(XQUAD_R)
    counts = {lang: sum(c.lang == lang for c in read.candidates) for lang in read.languages}
    assert counts == {
        "ar": 1222, "de": 1276, "el": 1234, "en": 1180, "es": 1215, "hi": 1244, "ru": 1219, "th": 852,
        "tr": 1167, "vi": 1209, "zh": 1196,
    }  # fmt: skip
    assert len(read.questions) == 13090


def changed(path, value):
    paragraph = copy.deepcopy(PARAGRAPH)
    node = paragraph
    for key in path[:-1]:
        node = node[key]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return paragraph


@pytest.mark.parametrize(
    ("paragraph", "message"),
    [
        (changed(["sentence_breaks"], None), "not LAReQA format, KeyError: 'sentence_breaks'"),
        (changed(["sentence_breaks"], [[0, 12]]), "1 sentence_breaks for 2 sentences"),
        (changed(["qas", 0, "answers", 0, "answer_start"], 99), "question q1: answer_start 99 lies in 0"),
        (changed(["qas"], PARAGRAPH["qas"] * 2), "question id 'q1' stands twice"),
        (changed(["qas", 0, "answers"], []), "not LAReQA format, IndexError"),
    ],
)
def test_offsets_that_do_not_fit_are_one_line(tmp_path, paragraph, message):
    with pytest.raises(Mistake, match=re.escape(message)) as caught:
        benchmarks.load(written(tmp_path, paragraph))
    assert "en.json: " in str(caught.value)


def test_missing_folder_language_and_broken_json(tmp_path):
    with pytest.raises(Mistake, match="no such benchmark folder"):
        benchmarks.load(tmp_path / "gone")
    with pytest.raises(Mistake, match="holds no"):
        benchmarks.load(tmp_path)
    (tmp_path / "en.json").write_text('{"data": [')
    with pytest.raises(Mistake, match=r"en\.json:1: broken JSON"):
        benchmarks.load(tmp_path)
    with pytest.raises(Mistake, match=r"fr\.json: not found"):
        benchmarks.load(tmp_path, ["fr"])
