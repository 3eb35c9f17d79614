"""Public corpora of question-passage pairs by name: where they lie, at which commit, under which licence.

Those of Elmahdy et al. (2024), and SQuAD. `datasets` 4 and later reads data files only, no scripts, so each
names Parquet files, often another's copy of a corpus, or the hub's own conversion. Their commits, columns
and sizes are copied from the hub's pages or from others' pinned uses; no file was opened here, and a note
says what is concluded rather than read. Where no such files were found, the note says what to do instead.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from hexapla.config_data import Source
from hexapla.schema import UserError
from hexapla.strict import hint


class Corpus(NamedTuple):
    hub: str
    """A dataset of the hub; or empty."""
    licence: str
    note: str
    """What was verified and what was concluded; of a corpus that can't be loaded, what to do instead."""
    config: str = ""
    revision: str = ""
    split: str = "train"
    path: str = ""
    """Of its data files, with `{split}`, where the dataset does not say itself which belong to what."""
    columns: Mapping[str, str] = {}
    where: Mapping[str, str] = {}
    rows: int = 0
    """Pairs of the split, roughly; 0: not known."""
    megabytes: int = 0
    """Of the split's files, to download, roughly."""
    languages: tuple[str, ...] = ("en",)
    loadable: bool = True


CORPORA: dict[str, Corpus] = {
    "wikiqa": Corpus(
        hub="microsoft/wiki_qa",
        config="default",
        revision="27cb3a4ece82a68a3f40eb27a1477a3a3cbb189d",
        columns={"question": "question", "passage": "answer"},
        where={"label": "1"},
        licence="Microsoft Research Data Licence Agreement for WikiQA",
        rows=1040,
        megabytes=2,
        note="The commit that took the script away, after the one that brought Parquet; columns and sizes "
        "seen. A row is a sentence of Wikipedia and whether it answers (label 1): the number of those is "
        "from the paper (Yang et al. 2015). No ids of pairs.",
    ),
    "mr-tydi-en": Corpus(
        hub="castorini/mr-tydi",
        revision="18aeca7eb7e91f0c8fe885212102ae11bc856b56",
        path="english/mr-tydi-{split}.parquet",
        columns={
            "id": "query_id",
            "question": "query",
            "passage": "positive_passages.0.text",
        },
        licence="Apache 2.0",
        rows=3547,
        megabytes=27,
        note="The hub's conversion, which took the script away; files seen at this commit. Columns concluded "
        "from that script, the size from the zipped original's; the number of pairs is the paper's "
        "(arXiv 2108.08787). Its negatives, about thirty a question, each of which would be translated, are "
        "taken with `columns: {negatives: negative_passages.text}`.",
    ),
    "duorc": Corpus(
        hub="ibm-research/duorc",
        config="SelfRC",
        revision="2de12436b8945030c283bf4af83925d60efe10c6",
        columns={"id": "question_id", "passage": "plot", "answer": "answers"},
        licence="MIT",
        rows=60721,
        megabytes=14,
        note="Files, columns and rows seen; the size is concluded from a copy's. Questions asked of the plot "
        "that they are answered from (`config: ParaphraseRC` has another plot of the same film). Passages "
        "are whole plots: set `cut_passages`. Answers need not stand in them word for word.",
    ),
    "newsqa": Corpus(
        hub="lucadiliello/newsqa",
        revision="728e52920b8e4ffcfaad93fa47556f26a1d82546",
        columns={"passage": "context", "answer": "answers"},
        licence="Microsoft's terms for NewsQA, CNN's for its texts: research only",
        rows=74160,
        megabytes=30,
        note="Files, columns and sizes seen: the MRQA 2019 edition, in which each answer stands in its "
        "passage. Passages are whole articles: set `cut_passages`.",
    ),
    "natural-questions": Corpus(
        hub="sentence-transformers/natural-questions",
        config="pair",
        revision="f9e894e1081e206e577b4eaa9ee6de2b06ae6f17",
        columns={"question": "query", "passage": "answer"},
        licence="CC BY-SA 3.0 (the original's)",
        rows=100231,
        megabytes=44,
        note="Files at this commit and columns seen: Google's questions with the long answers, without the "
        "short ones.",
    ),
    "yahoo-qa": Corpus(
        hub="sentence-transformers/yahoo-answers",
        config="question-answer-pair",
        revision="93b3605c508cf93e3666c9d3e34640b5fe62b507",
        columns={"question": "question", "passage": "answer"},
        licence="Yahoo Webscope L6: research only (the original's)",
        rows=681164,
        megabytes=297,
        note="Files, columns and sizes seen. `config: title-answer-pair` has the questions' titles alone; "
        "its columns were not seen (if theirs is `title`, add `columns: {question: title}`).",
    ),
    "entity-questions": Corpus(
        hub="",
        licence="see the original's repository",
        loadable=False,
        note="it has questions and answers, but no passages: download it from github.com/princeton-nlp/"
        "EntityQuestions, put to each question a passage of Wikipedia that holds its answer (as dense "
        "passage retrieval does), and give the result as kind 'files'",
    ),
    "mfaq": Corpus(
        hub="clips/mfaq",
        revision="a248bfcd24e0b137fea697e0ce7cff68ab5613ad",
        path="en_flat/mfaq-{split}*.parquet",
        columns={"question": "question", "passage": "answer"},
        licence="CC0 1.0 (its card; the texts are of web pages)",
        megabytes=372,
        note="The hub's conversion, files and sizes seen at this commit. Columns from the script that they "
        "were made with. The splits are called train and validation.",
    ),
    "mmarco": Corpus(
        hub="unicamp-dl/mmarco",
        licence="Apache 2.0; MS MARCO's texts for research only",
        rows=532761,
        languages=("en", "ar", "de", "es", "fr", "hi", "id", "it", "ja", "nl", "pt", "ru", "vi", "zh"),
        loadable=False,
        note="its dataset is a script over texts and ids apart, which `datasets` does not run, and no copy "
        "as pairs was found: download its data/google (collections, queries) and MS MARCO's qrels.train.tsv, "
        "load them into one SQLite file, and give it as kind 'sql' with a SELECT that joins them into the "
        "columns id, lang, question, passage, one row a language",
    ),
    "squad": Corpus(
        hub="rajpurkar/squad",
        config="plain_text",
        revision="7b6d24c440a36b6815f21b70d25016731768db1f",
        columns={"passage": "context"},
        licence="CC BY-SA 4.0",
        rows=87599,
        megabytes=14,
        note="Commit as pinned by many others. XQuAD and XQuAD-R are translations of its validation split: "
        "train on `train` alone.",
    ),
}
"""Names as in `preset:`."""


def resolve(source: Source) -> Source:
    """A source with a kind: of a preset, the dataset that it names; whatever stood beside it stays.

    Raises:
        UserError: the name is unknown, or its corpus can't be loaded; the message says what to do instead.
    """
    if not (name := source.preset):
        return source
    if name not in CORPORA:
        raise UserError(f"collect.sources: preset '{name}' is unknown; {hint(name, CORPORA)}")
    corpus = CORPORA[name]
    if not corpus.loadable:
        raise UserError(f"collect.sources: preset '{name}' can't be loaded: {corpus.note}")
    split = source.split if source.split != "train" else corpus.split
    return dataclasses.replace(
        source,
        kind="hub",
        preset="",
        name=source.title,
        dataset=corpus.hub,
        config=source.config or corpus.config,
        revision=_pinned(name, corpus),
        split=split,
        path=corpus.path.replace("{split}", split),
        columns={**corpus.columns, **source.columns},
        where={**corpus.where, **source.where},
        languages=source.languages or (() if corpus.languages == ("en",) else corpus.languages),
    )


def _pinned(name: str, corpus: Corpus) -> str:
    if not corpus.revision:
        raise UserError(
            f"collect.sources: no commit is known of preset '{name}'; take kind 'hub' with dataset "
            f"{corpus.hub} and a `revision` of https://huggingface.co/datasets/{corpus.hub}/commits/main"
        )
    return corpus.revision
