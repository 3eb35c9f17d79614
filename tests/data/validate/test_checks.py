import json
import subprocess
import sys
from functools import cache

import pytest

from conftest import LANGUAGES, SAMPLE
from hexapla import config
from hexapla.config_data import Executor, Validate
from hexapla.data.translate import quality
from hexapla.io import hashing, tables
from hexapla.pipeline.validate import validate
from hexapla.schema import PAIR_COLUMNS, QUALITY_COLUMNS, UserError
from hexapla.text.languages import Identifier

# Great Expectations imports modules of the standard library that are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")

# What a planted defect does to a row's numbers is looked at by itself.
LENIENT = {"min_kept": 0.0, "min_numbers_kept": 0.0}
BENCHMARK = (config.Benchmark("benchmark", path=str(SAMPLE / "benchmark")),)


HERE = Executor(workers=1)


@cache
def identifier():
    return Identifier(LANGUAGES)


def with_quality(rows):
    """The rows as `translate` leaves them."""
    english = {row.id: row for row in reversed(rows) if row.lang == "en"}
    for row in rows:
        original = english.get(row.id) if row.lang != "en" else None
        yield *row, *quality.measure(row, original, identifier())


class Outcome:
    """A run of the stage on some rows, and what it left behind."""

    def __init__(self, folder, rows, benchmarks=BENCHMARK, *, qualified=False, **settings):
        self.folder = folder
        self.paths = {
            "pairs": folder / "pairs.parquet",
            "data": SAMPLE,
            "out": folder / "out",
            "quarantine": folder / "quarantine.parquet",
            "summary": folder / "summary.json",
            "docs": folder / "docs",
            "contamination": folder / "contamination.csv",
        }
        tables.write_pairs(
            self.paths["pairs"], rows if qualified else with_quality(rows), extra=QUALITY_COLUMNS
        )
        chosen = Validate(**({"language": "off"} | LENIENT | settings))
        validate(chosen, benchmarks, HERE, **self.paths)

    @property
    def kept(self):
        return list(tables.iter_pairs(tables.read_pairs(self.paths["out"])))

    @property
    def rejected(self):
        rows = tables.read_pairs(self.paths["quarantine"]).to_pylist()
        return {(row["id"], row["lang"]): row["reasons"] for row in rows}

    @property
    def summary(self):
        return json.loads(self.paths["summary"].read_text(encoding="utf-8"))

    def count(self, name):
        (one,) = [entry for entry in self.summary["expectations"] if entry["name"] == name]
        return one["rejected"]


@pytest.fixture
def rows(sample_pairs):
    """Eight ids in English, German and Chinese."""
    ids = [pair.id for pair in sample_pairs[:8]]
    return [pair for pair in sample_pairs if pair.id in ids]


def place(rows, number, lang):
    return [i for i, pair in enumerate(rows) if pair.lang == lang][number]


def change(rows, number, lang, **changes):
    i = place(rows, number, lang)
    return [*rows[:i], rows[i]._replace(**changes), *rows[i + 1 :]]


def held_out(lang, question=True):
    tree = json.loads((SAMPLE / "benchmark" / f"{lang}.json").read_text(encoding="utf-8"))
    paragraph = tree["data"][0]["paragraphs"][0]
    return paragraph["qas"][0]["question"] if question else paragraph["sentences"][0]


def wide(text):
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


def test_clean_rows_all_pass_in_their_order(tmp_path, rows):
    mixed = rows[::2] + rows[1::2]
    outcome = Outcome(tmp_path, mixed, min_kept=1.0, language="both")
    assert outcome.kept == mixed
    assert outcome.rejected == {}
    summary = outcome.summary
    assert (summary["rows"], summary["kept"], summary["rejected"], summary["kept_share"]) == (24, 24, 0, 1.0)
    assert summary["languages"] == {lang: {"rows": 8, "kept": 8} for lang in ("de", "en", "zh")}
    assert summary["not_checked"] == {"script": [], "language": []}
    assert all(entry["rejected"] == 0 for entry in summary["expectations"])
    assert summary["benchmarks"]["benchmark"]["matches"] == 0
    assert summary["benchmarks"]["benchmark"]["texts"] > 1000


GERMAN = "Der Hund schläft auf dem Sofa, während draußen der Regen gegen die Fenster schlägt. "
FRENCH = "Le chien dort sur le canapé pendant que la pluie frappe aux fenêtres de la maison. " * 2
RUSSIAN = "Кто написал эту картину? "
LEAK = "not in a benchmark: benchmark"
DEFECTS = {
    "empty question": ({"question": " "}, "question not empty"),
    "no question": ({"question": None}, "question not empty"),
    "empty passage": ({"passage": "\n", "answer": ""}, "passage not empty"),
    "short question": ({"question": "Was"}, "question length: 3"),
    "long question": ({"question": GERMAN * 15}, f"question length: {len(GERMAN) * 15 - 1}"),
    "short passage": ({"passage": "Der Hund.", "answer": ""}, "passage length: 9"),
    "passage too long beside the English": (
        {"passage": GERMAN * 20, "answer": ""},
        "passage length beside the English: ",
    ),
    "question in another script": ({"question": RUSSIAN}, "question script: 0"),
    "passage in another script": (
        {"passage": "Кто написал эту картину? " * 8, "answer": ""},
        "passage script: 0",
    ),
    "passage in another language": ({"passage": FRENCH, "answer": ""}, "passage language: fr"),
    "answer elsewhere": ({"answer": "Schwarzwälder Kirschtorte"}, "answer in the passage"),
    "benchmark question": ({"question": held_out("de")}, LEAK),
    "benchmark question in English": ({"question": held_out("en")}, LEAK),
    "benchmark question, shouted": (
        {"question": f" {held_out('de').upper()}!! "},
        LEAK,
    ),
    "benchmark question, wide": ({"question": wide(held_out("de"))}, LEAK),
    "benchmark passage": (
        {"passage": held_out("de", question=False).replace(" ", "  "), "answer": ""},
        LEAK,
    ),
    "no passage_id": ({"passage_id": None}, "passage_id present"),
    "bad language code": ({"lang": "German"}, "language code: German"),
    "no language": ({"lang": None}, "lang present"),
    "no English row": ({"id": "orphan"}, "English row kept"),
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory, sample_pairs):
    """One run over a table with every defect, each in the German row of its own id."""
    rows, bad = list(sample_pairs), {}
    places = [i for i, pair in enumerate(rows) if pair.lang == "de"]
    for i, (defect, (changes, _)) in zip(places, DEFECTS.items(), strict=False):
        rows[i] = bad[defect] = rows[i]._replace(**changes)
    return rows, bad, Outcome(tmp_path_factory.mktemp("planted"), rows, language="passage")


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_takes_its_row_for_its_reason(planted, defect):
    _, bad, outcome = planted
    reasons = outcome.rejected[bad[defect].id, bad[defect].lang].split("; ")
    assert any(reason.startswith(DEFECTS[defect][1]) for reason in reasons)


def test_planted_defects_take_no_other_row(planted):
    rows, bad, outcome = planted
    assert outcome.kept == [pair for pair in rows if pair not in bad.values()]
    assert len(outcome.rejected) == len(DEFECTS)
    assert outcome.summary["benchmarks"]["benchmark"]["matches"] == 5
    entries = outcome.summary["expectations"]
    assert all(sum(entry["languages"].values()) == entry["rejected"] for entry in entries)


@pytest.mark.parametrize("text", ["question", "passage"])
def test_a_copy_of_the_english_is_found_in_any_case(tmp_path, rows, text):
    english = rows[place(rows, 2, "en")]
    planted = change(rows, 2, "de", **{text: getattr(english, text).upper() + "!", "answer": ""})
    reasons = Outcome(tmp_path, planted).rejected
    assert reasons == {(english.id, "de"): "not a copy of the English: 1"}


def test_a_bad_english_row_takes_its_translations_along(tmp_path, rows):
    outcome = Outcome(tmp_path, change(rows, 1, "en", answer="nowhere to be found"))
    bad = rows[place(rows, 1, "en")].id
    assert outcome.rejected == {
        (bad, "en"): "answer in the passage",
        (bad, "de"): "English row kept",
        (bad, "zh"): "English row kept",
    }


def test_english_rows_are_checked_for_their_language(tmp_path, rows):
    bad = rows[place(rows, 0, "en")].id
    outcome = Outcome(tmp_path, change(rows, 0, "en", passage=GERMAN * 2, answer=""), language="passage")
    assert outcome.rejected[bad, "en"] == "passage language: de"


def test_of_two_rows_for_an_id_and_language_neither_can_be_trusted(tmp_path, rows):
    twin = rows[place(rows, 5, "de")]
    planted = [*rows, twin._replace(passage=rows[place(rows, 6, "de")].passage, answer="")]
    outcome = Outcome(tmp_path, planted)
    assert outcome.rejected == {(twin.id, "de"): "one row an id and language"}
    assert outcome.summary["rejected"] == 2


def test_the_later_of_two_equal_pairs_goes(tmp_path, rows):
    first = rows[place(rows, 0, "de")]
    planted = change(rows, 4, "de", question=first.question.lower(), passage=first.passage + " ", answer="")
    bad = rows[place(rows, 4, "de")]
    assert Outcome(tmp_path, planted).rejected == {(bad.id, "de"): "no repeated pair"}


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("copy_share", 0.95, "not a copy of the English: 0.95"),
        ("numbers_kept", 0.25, "numbers kept: 0.25"),
        ("cosine", 0.125, "meaning kept: 0.125"),
        ("length_ratio", 3.5, "passage length beside the English: 3.5"),
        ("passage_language", "nl", "passage language: nl"),
    ],
)
def test_what_translation_lost_is_read_from_the_table(tmp_path, rows, column, value, reason):
    """And judged by the bounds of the row's language: the other one's are wider."""
    planted = [list(row) for row in with_quality(rows)]
    at = [*PAIR_COLUMNS, *QUALITY_COLUMNS].index(column)
    where = [place(rows, 1, lang) for lang in ("de", "zh")]
    for row in where:
        planted[row][at] = value
    wide = {
        "max_copy_share": 1.0, "min_numbers_kept": 0.0, "min_cosine": 0.0, "max_length_ratio": 4.0,
    }  # fmt: skip
    settings = {"language": "passage", "min_numbers_kept": 0.5, "languages": {"zh": wide}}
    outcome = Outcome(tmp_path, map(tuple, planted), qualified=True, **settings)
    own = rows[where[0]].id
    identified = {(own, "zh"): "passage language: nl"} if column == "passage_language" else {}
    assert outcome.rejected == {(own, "de"): reason, **identified}
    (told,) = [one for one in outcome.summary["expectations"] if one["rejected"]]
    assert told["sources"] == {"sample": 1 + len(identified)}
    assert told["languages"] == {"de": 1, "en": 0, "zh": len(identified)}


def test_a_source_has_bounds_of_its_own(tmp_path, rows):
    planted = [row._replace(source="other" if row.id == rows[0].id else "sample") for row in rows]
    outcome = Outcome(tmp_path, planted, sources={"other": {"min_question_chars": 500}}, min_question_chars=1)
    assert {(row.id, row.lang) for row in rows if row.id == rows[0].id} == set(outcome.rejected)
    assert outcome.summary["sources"] == {"other": {"rows": 3, "kept": 0}, "sample": {"rows": 21, "kept": 21}}


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"answer_in_passage": False}, {"answer": "Schwarzwälder Kirschtorte"}),
        ({"language": "off"}, {"passage": FRENCH, "answer": ""}),
        ({"language": "passage"}, {"question": "Qui a peint ce tableau célèbre du musée ?"}),
        ({"min_question_chars": 3}, {"question": "Was"}),
    ],
)
def test_settings_say_what_is_looked_at(tmp_path, rows, settings, changes):
    assert Outcome(tmp_path, change(rows, 3, "de", **changes), **settings).rejected == {}


def test_both_texts_are_identified_when_asked(tmp_path, rows):
    planted = change(rows, 3, "de", question="Qui a peint ce tableau célèbre du musée ?")
    rejected = Outcome(tmp_path, planted, language="both").rejected
    assert rejected == {(rows[place(rows, 3, "de")].id, "de"): "question language: fr"}


def test_languages_that_cannot_be_checked_are_named(tmp_path, rows):
    renamed = [pair._replace(lang="tlh") if pair.lang == "de" else pair for pair in rows]
    outcome = Outcome(tmp_path / "known", renamed, language="passage")
    assert outcome.rejected == {}
    assert outcome.summary["not_checked"] == {"script": ["tlh"], "language": ["tlh"]}
    outcome = Outcome(tmp_path / "off", rows, language="off")
    assert outcome.summary["not_checked"] == {"script": [], "language": ["de", "en", "zh"]}


def test_too_few_rows_fail_in_one_line_and_leave_the_evidence(tmp_path, rows):
    Outcome(tmp_path, rows)
    assert (tmp_path / "out").is_dir()
    planted = [pair._replace(answer="not there") if pair.lang == "de" else pair for pair in rows]
    with pytest.raises(UserError) as caught:
        Outcome(tmp_path, planted, min_kept=0.9)
    message = str(caught.value)
    assert "kept 16 of 24 rows" in message
    assert "validate.min_kept is 0.9" in message
    assert message.endswith("answer in the passage 8")
    assert "\n" not in message
    assert not (tmp_path / "out").exists()
    assert json.loads((tmp_path / "summary.json").read_text())["rejected"] == 8
    assert tables.read_pairs(tmp_path / "quarantine.parquet").num_rows == 8
    assert (tmp_path / "docs" / "index.html").is_file()


def test_nothing_left_fails_even_when_any_share_would_do(tmp_path, rows):
    with pytest.raises(UserError, match="nothing is left"):
        Outcome(tmp_path, [pair for pair in rows if pair.lang != "en"])
    with pytest.raises(UserError, match="no rows"):
        Outcome(tmp_path, [])


def test_a_benchmark_that_is_not_there_is_named(tmp_path, rows):
    with pytest.raises(UserError, match="nowhere: no such benchmark folder"):
        Outcome(tmp_path, rows, benchmarks=(config.Benchmark("nowhere", path="gone"),))
    assert not (tmp_path / "summary.json").exists()


def test_other_columns_than_a_parallel_tables_are_refused(tmp_path, rows):
    names = ("out", "quarantine", "summary", "docs", "contamination")
    paths = {"data": SAMPLE, **{name: tmp_path / name for name in names}}
    columns = ", ".join((*PAIR_COLUMNS, *QUALITY_COLUMNS))
    wide = [(*row, "x") for row in with_quality(rows)]
    tables.write_pairs(tmp_path / "wide.parquet", wide, extra=[*QUALITY_COLUMNS, "note"])
    with pytest.raises(
        UserError, match=f"wide.parquet: its columns are not exactly {columns}; run `dvc repro`"
    ):
        validate(Validate(), BENCHMARK, HERE, pairs=tmp_path / "wide.parquet", **paths)
    tables.write_pairs(tmp_path / "old.parquet", rows)
    with pytest.raises(UserError, match=r"old.parquet: column 'length_ratio' is missing; run `dvc repro`"):
        validate(Validate(), BENCHMARK, HERE, pairs=tmp_path / "old.parquet", **paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.parquet", "wide.parquet"]


def test_the_same_table_gives_the_same_bytes_and_harmless_pages(tmp_path, rows):
    markup = "<script>alert(1)</script> $id {lang} "
    number = place(rows, 3, "de")
    planted = change(rows, 3, "de", question=f"{markup}?", passage=markup * 3, answer="", id="<b>$id</b>")
    planted[number] = planted[number]._replace(lang="<i>de</i>")
    for name in ("one", "two"):
        Outcome(tmp_path / name, planted)
    assert hashing.sha256(tmp_path / "one") == hashing.sha256(tmp_path / "two")
    pages = [page.read_text(encoding="utf-8") for page in (tmp_path / "one" / "docs").rglob("*.html")]
    assert len(pages) >= 4
    for page in pages:
        for tag in ("<script>alert", "<b>$id", "<i>de"):
            assert tag not in page
    assert any("&lt;i&gt;de" in page for page in pages)
    kept = tables.read_pairs(tmp_path / "one" / "quarantine.parquet").to_pylist()
    assert [row["lang"] for row in kept] == ["<i>de</i>"]


def test_importing_the_module_does_not_load_great_expectations():
    heavy = "{'great_expectations', 'py3langid'}"
    code = f"import sys, hexapla.data.validate.checks; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
