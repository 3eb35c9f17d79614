"""Presets: complete, pinned, and honest about what can't be had."""

import dataclasses

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from hexapla.config_data import Source
from hexapla.data.collect import corpora, sources
from hexapla.data.collect.cells import Cells
from hexapla.data.collect.corpora import CORPORA
from hexapla.schema import UserError
from hexapla.text.languages import is_known_language

LOADABLE = [name for name, corpus in CORPORA.items() if corpus.loadable]
# A row as each dataset documents its columns.
ROWS = {
    "wikiqa": {"question_id": "Q1", "question": "Who?", "answer": "The cat.", "label": 1},
    "mr-tydi-en": {
        "query_id": "7",
        "query": "Who?",
        "positive_passages": [{"docid": "1#0", "text": "The cat.", "title": "Cat"}],
        "negative_passages": [{"docid": "2#0", "text": "The dog.", "title": "Dog"}],
    },
    "duorc": {
        "plot_id": "/m/1", "plot": "The cat.", "title": "Cat", "question_id": "a-b", "question": "Who?",
        "answers": ["cat"], "no_answer": False,
    },
    "newsqa": {"context": "The cat.", "question": "Who?", "answers": ["cat"], "key": "k", "labels": []},
    "natural-questions": {"query": "Who?", "answer": "The cat."},
    "yahoo-qa": {"question": "Who?", "answer": "The cat."},
    "mfaq": {"domain_id": 1, "pair_id": 2, "language": "en", "question": "Who?", "answer": "The cat."},
    "squad": {
        "id": "5", "title": "Cat", "context": "The cat.", "question": "Who?",
        "answers": {"text": ["cat"], "answer_start": [4]},
    },
}  # fmt: skip
ANSWERED = {"duorc", "newsqa", "squad"}


def test_the_papers_sources_are_there():
    assert set(CORPORA) == {
        "wikiqa", "mr-tydi-en", "duorc", "newsqa", "natural-questions", "yahoo-qa", "entity-questions",
        "mfaq", "mmarco", "squad",
    }  # fmt: skip
    for corpus in CORPORA.values():
        assert corpus.licence
        assert corpus.note
        assert all(map(is_known_language, corpus.languages))
    assert set(ROWS) == set(LOADABLE)


@pytest.mark.parametrize("name", LOADABLE)
def test_a_preset_becomes_a_pinned_dataset_of_the_hub(name):
    given = Source(preset=name, limit=7, sample=0.5, min_passage_chars=3, cut_passages=400)
    source = corpora.resolve(given)
    assert (source.kind, source.preset, source.title) == ("hub", "", name)
    assert len(source.revision) == 40
    assert set(source.revision) <= set("0123456789abcdef")
    assert "/" in source.dataset
    assert "{" not in source.path
    assert (source.limit, source.sample, source.min_passage_chars, source.cut_passages) == (7, 0.5, 3, 400)
    assert corpora.resolve(source) == source


@pytest.mark.parametrize("name", LOADABLE)
def test_the_columns_find_question_and_passage_in_a_documented_row(name):
    cells = Cells("row 1", ROWS[name], corpora.resolve(Source(preset=name)).columns)
    assert (cells.text("question"), cells.text("passage")) == ("Who?", "The cat.")
    assert cells.answer() == ("cat" if name in ANSWERED else "")
    assert cells.negatives() == ()
    cells.text("id")


@pytest.mark.parametrize("name", LOADABLE)
def test_datasets_reads_a_preset_from_files_that_lie_as_the_hub_has_them(name, tmp_path):
    corpus = CORPORA[name]
    pattern = corpus.path.replace("{split}", "train").replace("*", "-00000-of-00001")
    file = tmp_path / (pattern or f"{corpus.config or 'data'}/train-00000-of-00001.parquet")
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([ROWS[name]]), file)
    if not corpus.path:
        part = {"split": "train", "path": f"{file.parent.name}/train-*"}
        card = {"configs": [{"config_name": corpus.config or "default", "data_files": [part]}]}
        (tmp_path / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    source = dataclasses.replace(corpora.resolve(Source(preset=name)), dataset=str(tmp_path))
    (pair,) = sources.pairs(sources.rows(source, tmp_path), source, sources.Tally())
    assert (pair.source, pair.lang, pair.question, pair.passage) == (name, "en", "Who?", "The cat.")
    assert pair.negatives == ()


def test_negatives_that_a_preset_leaves_out_can_be_asked_for():
    asked = Source(preset="mr-tydi-en", columns={"negatives": "negative_passages.text"})
    cells = Cells("row 1", ROWS["mr-tydi-en"], corpora.resolve(asked).columns)
    assert cells.negatives() == ("The dog.",)


def test_what_stands_beside_a_preset_goes_before_it():
    source = corpora.resolve(
        Source(
            preset="duorc", name="films", split="validation", columns={"negatives": "hard"}, where={"a": "b"}
        )
    )
    assert (source.title, source.split) == ("films", "validation")
    assert source.columns == {**CORPORA["duorc"].columns, "negatives": "hard"}
    assert source.where == {"a": "b"}
    assert (
        corpora.resolve(Source(preset="mfaq", split="validation")).path == "en_flat/mfaq-validation*.parquet"
    )


@pytest.mark.parametrize(("name", "config"), [("duorc", "ParaphraseRC"), ("yahoo-qa", "title-answer-pair")])
def test_a_configuration_that_a_note_names_can_be_asked_for(name, config, monkeypatch):
    import datasets

    def loaded(dataset, given, **options):
        assert (dataset, given) == (CORPORA[name].hub, config)
        assert options["revision"] == CORPORA[name].revision
        return [ROWS[name]]

    assert f"`config: {config}`" in CORPORA[name].note
    monkeypatch.setattr(datasets, "load_dataset", loaded)
    source = corpora.resolve(Source(preset=name, config=config, cut_passages=400))
    (pair,) = sources.pairs(sources.rows(source, None), source, sources.Tally())
    assert (pair.source, pair.passage) == (name, "The cat.")


def test_other_sources_stay_as_they_are():
    source = Source(kind="files", path="a.jsonl")
    assert corpora.resolve(source) is source


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("natural-question", "'natural-question' is unknown; did you mean 'natural-questions'?"),
        ("bible", "'bible' is unknown; known are wikiqa"),
        ("entity-questions", "'entity-questions' can't be loaded: .*no passages: download.*kind 'files'"),
        ("mmarco", "'mmarco' can't be loaded: .*script.*download.*kind 'sql'"),
    ],
)
def test_what_is_unknown_or_out_of_reach_says_what_to_do(name, message):
    with pytest.raises(UserError, match=message) as caught:
        corpora.resolve(Source(preset=name))
    assert "\n" not in str(caught.value)


def test_a_corpus_without_a_known_commit_asks_for_one(monkeypatch):
    monkeypatch.setitem(CORPORA, "squad", CORPORA["squad"]._replace(revision=""))
    with pytest.raises(
        UserError, match=r"kind 'hub' with dataset rajpurkar/squad and a `revision`.*commits/main"
    ):
        corpora.resolve(Source(preset="squad"))
