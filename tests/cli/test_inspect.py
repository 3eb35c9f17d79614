"""Rows next to their English on a terminal: which are shown, and that none drives it."""

import re

import pytest
from rich.cells import cell_len

from hexapla.io import tables as parquet
from hexapla.schema import Quality
from rejected_rows import ENGLISH, REJECTED, row, write_tables


@pytest.fixture
def tables(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    return write_tables(tmp_path)


@pytest.mark.parametrize(
    ("flags", "ids", "total"),
    [
        ([], ["s/0", "s/1", "s/4", "s/5"], 4),
        (["--limit", "2"], ["s/0", "s/1"], 4),
        (["--check", "passage language"], ["s/0", "s/5"], 2),
        (["--check", "passage language", "--lang", "zh"], ["s/5"], 1),
        (["--source", "t"], ["s/5"], 1),
        (["--check", "passage script", "--source", "t"], [], 0),
    ],
)
def test_rows_are_chosen_by_check_language_and_source(tables, hexapla, flags, ids, total):
    pairs, written = tables
    status, out, err = hexapla("inspect", "--quarantine", written(REJECTED), "--pairs", pairs, *flags)
    assert (status, err) == (0, "")
    assert re.findall(r"^── .* · (\S+) · ", out, re.MULTILINE) == ids
    assert f"{len(ids)} of {total} rejected rows" in out.splitlines()[-1]
    if not ids:
        assert len(out.splitlines()) == 1


def test_each_row_stands_beside_its_english_with_its_reasons_and_match(tables, hexapla):
    pairs, written = tables
    _, out, _ = hexapla("inspect", "--quarantine", written(REJECTED), "--pairs", pairs)
    shown = {block.split(" · ")[1]: block for block in out.split("── ")[1:]}
    for i in (0, 4):
        assert re.search(rf"question +\S?Question {i}\?.*│ \S?Frage {i}\?", shown[f"s/{i}"])
        assert re.search(rf"passage +\S?Passage {i}\..*│ \S?Absatz {i}\.", shown[f"s/{i}"])
    assert "reasons   passage language: fr; answer in the passage" in shown["s/0"]
    assert "match     xquad-r (de): Wer malte sie?" in shown["s/4"]
    assert "cosine 0.9" in shown["s/0"]


def test_no_line_is_wider_than_the_terminal_and_the_columns_stand_in_line(tables, hexapla, monkeypatch):
    pairs, written = tables
    wide = row(0, lang="zh", reasons="passage script", passage="一二三四五 六七八九十" * 40)
    arabic = row(1, lang="ar", reasons="passage script", passage="هذا نص طويل من اليمين إلى اليسار " * 20)
    _, out, _ = hexapla("inspect", "--quarantine", written([wide, arabic]), "--pairs", pairs)
    lines = out.splitlines()
    assert max(map(cell_len, lines)) <= 100
    assert {cell_len(line[: line.index("│")]) for line in lines if "│" in line} == {10 + 43 + 1}
    for line in lines:
        assert line.count("\u2068") == line.count("\u2069"), "an isolate is left open"


def test_a_text_that_is_cut_says_how_much_is_left(tables, hexapla):
    pairs, written = tables
    long = row(0, reasons="passage length", passage="wort " * 400)
    _, out, _ = hexapla("inspect", "--quarantine", written([long]), "--pairs", pairs, "--lines", "3")
    assert out.count("wort") < 40
    assert re.search(r"… \+1,\d{3}", out)


def test_a_check_that_nobody_failed_gets_the_choices(tables, hexapla):
    pairs, written = tables
    path = written(REJECTED)
    status, _, err = hexapla("inspect", "--quarantine", path, "--pairs", pairs, "--check", "pasage language")
    assert status == 2
    assert err == (
        "hexapla inspect: --check: no row was rejected by 'pasage language'; did you mean "
        "'passage language'? rows were by answer in the passage (1), not in a benchmark (1), "
        "passage language (2), passage script (1)\n"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--limit", "0"], "'--limit': Input should be greater than or equal to 1"),
        (["--lines", "0"], "'--lines': Input should be greater than or equal to 1"),
        (["--check", "x", "--borderline", "cosine"], "--check: rows at a bound passed every check"),
        (["--borderline", "beauty"], "Invalid value for '--borderline': 'beauty' is not one of"),
        (["--quarantine", "gone.parquet"], "gone.parquet: not found; run `dvc repro`"),
    ],
)
def test_mistakes_are_one_line(tables, hexapla, flags, message):
    status, out, err = hexapla("inspect", *flags)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_nothing_rejected_is_one_line(tables, hexapla):
    pairs, written = tables
    for more in ([], ["--check", "passage language"]):
        status, out, _ = hexapla("inspect", "--quarantine", written([]), "--pairs", pairs, *more)
        assert (status, len(out.splitlines())) == (0, 1)
        assert out.startswith("0 of 0 rejected rows")


def test_a_rejected_row_without_english_says_so(tables, hexapla):
    pairs, written = tables
    orphan = row(0, reasons="English row kept", id="s/99")
    _, out, _ = hexapla("inspect", "--quarantine", written([orphan]), "--pairs", pairs)
    assert "(no English row)" in out


def test_another_table_than_the_quarantine_is_refused(tables, hexapla):
    pairs, _ = tables
    status, _, err = hexapla("inspect", "--quarantine", pairs, "--pairs", pairs)
    assert status == 2
    assert "column 'reasons' is missing" in err


def test_rejected_english_rows_stand_alone(tables, hexapla):
    pairs, written = tables
    english = (*ENGLISH["s/2"], *Quality(), "question length", "")
    _, out, _ = hexapla("inspect", "--quarantine", written([english]), "--pairs", pairs)
    assert out.count("Question 2?") == 1


# --- borderline ----------------------------------------------------------------------------------


def test_borderline_is_a_command_and_an_old_table_is_refused(tables, hexapla, tmp_path):
    pairs, written = tables
    kept = written([row(2)], "kept.parquet")
    flags = ["--pairs", pairs, "--borderline", "cosine", "--kept"]
    status, out, _ = hexapla("inspect", *flags, kept)
    assert status == 0
    assert "0.15 from the bound" in out
    assert out.splitlines()[-1] == "1 of 1 kept rows, by distance of cosine"
    parquet.write_pairs(tmp_path / "old.parquet", [ENGLISH["s/0"]])
    status, _, err = hexapla("inspect", *flags, tmp_path / "old.parquet")
    assert status == 2
    assert "column 'cosine' is missing" in err


@pytest.mark.parametrize(("flag", "value"), [("--lang", "th"), ("--source", "nope")])
def test_a_language_or_source_without_rejected_rows_is_named_with_those_that_have(
    tables, hexapla, flag, value
):
    pairs, written = tables
    status, _, err = hexapla("inspect", "--quarantine", written(REJECTED), "--pairs", pairs, flag, value)
    assert status == 2
    held = "de, zh" if flag == "--lang" else "s, t"
    assert err.endswith(f"{flag}: no row of '{value}' is here; there are rows of {held}\n")
