"""The stage: what its table holds, and that nothing keeps it from ending with the same bytes."""

import errno
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SAMPLE, sample
from hexapla.config import Collect, FilesSource, PresetSource, SampleSource
from hexapla.data.collect import dedup, shards, sources
from hexapla.io import tables as parquet
from hexapla.pipeline.collect import collect
from hexapla.schema import UserError

WORDS = [
    f"{a}{b}{c}" for a in ("ka", "lo", "mi", "ne", "su") for b in "rstvz" for c in ("an", "el", "o", "ush")
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run(*given, near_duplicates=0.8, out="pairs"):
    collect(
        Collect(sources=given, near_duplicates=near_duplicates),
        (),
        sample=SAMPLE,
        out=Path(out),
        benchmarks_out=Path("benchmarks"),
        summary=Path("summary.json"),
    )
    return json.loads(Path("summary.json").read_text(encoding="utf-8"))


def rows(out="pairs"):
    return [*parquet.stream_pairs(Path(out))]


def written(path, lines):
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return str(path)


def generated(count, seed=0, languages=()):
    """Rows, some of which are those before them, or nearly so, or are not answered."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        passage, question = (" ".join(rng.choices(WORDS, k=k)) for k in (40, 9))
        row = {"question": f"{question}?", "passage": f"{passage}.", "answers": ["ka"]}
        if made and number % 20 == 5:
            row |= {name: made[-1][name] for name in ("question", "passage")}
        elif made and number % 20 == 9:
            row |= {"question": made[-1]["question"].upper(), "passage": f"{made[-1]['passage']} {WORDS[0]}"}
        elif number % 50 == 30:
            row["answers"] = []
        made.append({"id": f"r{number}", "lang": "en", **row})
    others = [
        {**row, "lang": lang, "passage": f"{lang} {row['passage']}"}
        for row in made
        for lang in languages
        if row["answers"]
    ]
    return made, others


def test_the_sample_keeps_its_rows():
    card = run(SampleSource())
    assert [path.name for path in Path("pairs").glob("*.parquet")] == ["00-sample-00000.parquet"]
    got = rows()
    expected = sample("en")
    assert [pair.id for pair in got] == [f"sample/{row['id']}" for row in expected]
    assert [pair.passage for pair in got] == [row["passage"] for row in expected]
    digests = [hashlib.sha256(" ".join(pair.passage.split()).encode()).hexdigest() for pair in got]
    assert [pair.passage_id for pair in got] == [f"p{digest[:16]}" for digest in digests]
    assert (card["pairs"], card["languages"], card["near_duplicates"]) == (336, {"en": 336}, 0)


def test_of_duplicates_the_first_source_keeps_its_own(here):
    made, _ = generated(200)
    path = written(here / "rows.jsonl", made)
    own = FilesSource(path=path, name="own")
    again = FilesSource(path=path, name="once again")
    card = run(own, again)
    tallies = card["sources"]
    assert tallies["own"] == {
        **tallies["own"], "read": 200, "kept": 176, "duplicates": 10, "near_duplicates": 10, "skipped": 4,
    }  # fmt: skip
    # What was near to a row is equal to one now, namely to itself.
    assert tallies["once again"]["duplicates"] == 196
    assert (card["pairs"], card["duplicates"], card["near_duplicates"]) == (176, 206, 10)
    assert [path.name for path in Path("pairs").glob("*.parquet")] == ["00-own-00000.parquet"]
    card = run(again, own, near_duplicates=1.0)
    assert (card["sources"]["once again"]["kept"], card["near_duplicates"]) == (186, 0)
    assert [path.name for path in Path("pairs").glob("*.parquet")] == ["00-once-again-00000.parquet"]
    assert {pair.source for pair in rows()} == {"once again"}


def test_negatives_and_equal_passages_ids_are_kept(here):
    lines = [
        {"question": "Who?", "passage": "The one.", "negatives": ["Another.", "A third."]},
        {"question": "Where?", "passage": " The  one."},
    ]
    run(FilesSource(path=written(here / "rows.jsonl", lines)))
    one, two = rows()
    assert one.negatives == ("Another.", "A third.")
    assert one.passage_id == two.passage_id
    assert one.id != two.id


def test_parallel_data_is_the_same_whether_its_languages_stand_together_or_apart(here, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_ROWS", 100)
    monkeypatch.setattr(shards, "HELD_ROWS", 150)
    monkeypatch.setattr(parquet, "PART_ROWS", 64)
    made, others = generated(300, languages=("fr", "de"))
    alone = {"id": "x", "lang": "de", "question": "Was?", "passage": "Nichts."}
    together = sorted([*made, *others, alone], key=lambda row: int(row["id"][1:] or 999))
    apart = [alone, *others, *made]
    cards, tables, files = [], [], []
    for lines in (together, apart):
        written(here / "rows.jsonl", lines)
        cards.append(run(FilesSource(path="rows.jsonl")))
        tables.append(rows())
        files.append({path.name: path.read_bytes() for path in Path("pairs").glob("*.parquet")})
    assert tables[0] == tables[1]
    assert files[0] == files[1]
    assert cards[0] == cards[1]
    assert cards[0]["languages"] == {"de": 264, "en": 264, "fr": 264}
    assert cards[0]["pairs"] == 264
    tally = cards[0]["sources"]["files"]
    assert (tally["without_english"], tally["translations"], tally["near_duplicates"]) == (1, 2 * 264, 15)
    for file in sorted(Path("pairs").glob("*.parquet")):
        part = [*parquet.stream_pairs(file)]
        assert len(part) <= 64
        assert [pair.lang for pair in part] == ["en", "de", "fr"] * (len(part) // 3)
        assert all(len({pair.passage_id for pair in part if pair.id == one.id}) == 1 for one in part)


def test_translations_whose_english_row_was_left_out_are_told_and_not_called_pairs(here):
    made, others = generated(40, languages=("de",))
    path = written(here / "rows.jsonl", [*made, *others])
    card = run(FilesSource(path=path, limit=10))
    tally = card["sources"]["files"]
    assert (tally["kept"], tally["translations"], tally["over_limit"]) == (8, 8, 30)
    assert tally["without_english"] == 39 - 10  # one of the 40 has no answer, and so no translation
    assert card["languages"] == {"de": 8, "en": 8}


@pytest.mark.parametrize("place", ["pairs/rows.jsonl", "pairs/deep/rows.jsonl"])
def test_a_source_in_the_folder_that_is_replaced_stays(here, place):
    made, _ = generated(4)
    Path(place).parent.mkdir(parents=True)
    path = written(here / place, made)
    before = Path(path).read_bytes()
    with pytest.raises(UserError, match=r"pairs"):
        run(FilesSource(path=path))
    assert Path(path).read_bytes() == before


def test_a_folder_of_other_things_is_not_replaced_by_a_table(here):
    made, _ = generated(4)
    path = written(here / "rows.jsonl", made)
    Path("pairs").mkdir()
    Path("pairs/thesis.txt").write_text("years of work")
    with pytest.raises(
        UserError, match=r"pairs: holds thesis.txt, which Hexapla did not write, and would be replaced"
    ):
        run(FilesSource(path=path))
    assert Path("pairs/thesis.txt").read_text() == "years of work"


def test_an_id_that_clashes_names_source_id_and_places(here):
    made, _ = generated(40)
    path = written(here / "rows.jsonl", [*made, {**made[7], "question": "Another?"}])
    with pytest.raises(UserError) as caught:
        run(SampleSource(), FilesSource(path=path, name="own"))
    assert str(caught.value) == (
        f"{path}:41: id 'r7' of source 'own' occurs before with another text, at {path}:8; "
        "a source's ids must differ"
    )
    assert not Path("pairs").exists()


def test_what_is_wrong_with_a_later_source_shows_before_the_first_is_read(here):
    with pytest.raises(UserError, match="none.jsonl: not found"):
        run(SampleSource(), FilesSource(path="none.jsonl"))
    with pytest.raises(UserError, match="natural-questions"):
        run(SampleSource(), PresetSource(preset="natural-qestions"))
    assert not (here / "cache").exists()


@pytest.mark.parametrize("known", [True, False])
def test_nothing_but_what_may_be_used_again_is_left_in_the_cache(here, monkeypatch, known):
    if not known:
        monkeypatch.setattr(sources, "fingerprint", lambda *_: None)
    run(FilesSource(path=written(here / "rows.jsonl", generated(50)[0])))
    left = [path.name for path in (here / "cache").rglob("*") if path.is_file() and path.suffix != ".TAG"]
    assert sorted(left) == (
        ["00000.json", f"00000.{dedup.name_signatures()}.npy", "00000.parquet", "end.json"] if known else []
    )


@pytest.mark.parametrize("place", ["parts", "table"])
def test_a_full_disk_leaves_nothing_half_written_and_the_next_run_goes_on(here, monkeypatch, place):
    monkeypatch.setattr(shards, "SHARD_ROWS", 100)
    source = FilesSource(path=written(here / "rows.jsonl", generated(500)[0]))
    write = parquet.write_pairs
    count = 0

    def full(path, pairs, extra=()):
        nonlocal count
        count += 1
        if count == {"parts": 4, "table": 6}[place]:
            write(path.with_name("half"), pairs)
            path.with_name("half").unlink()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, pairs, extra)

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write_pairs", full)
        with pytest.raises(OSError, match="No space left"):
            run(source)
    assert not Path("pairs").exists()
    assert not Path("summary.json").exists()
    left = {path.name for path in here.rglob("*") if path.is_file() and path.suffix not in (".npy", ".TAG")}
    parts = 3 if place == "parts" else 5
    wanted = {"rows.jsonl"} | {f"{n:05d}.{kind}" for n in range(parts) for kind in ("json", "parquet")}
    assert left - {"end.json"} == wanted
    run(source)
    assert len(rows()) == 440


RUNNER = """
import os, random, signal, sys, time
from pathlib import Path
from hexapla.io import cache as store, tables as parquet
from hexapla.data.collect import shards
from hexapla.config import Collect, FilesSource
from hexapla.pipeline.collect import collect

shards.SHARD_ROWS, parquet.PART_ROWS, shards.HELD_ROWS = 250, 300, 400
given = Collect(sources=(FilesSource(path="plain.jsonl", name="plain"),
                 FilesSource(path="apart.jsonl", name="apart", limit=300)))
folders = dict(sample=Path("none"), out=Path("pairs"), benchmarks_out=Path("benchmarks"))

def run():
    collect(given, (), **folders, summary=Path("summary.json"))

def child():
    pid = os.fork()
    if not pid:
        try:
            run()
        finally:
            os._exit(0)
    return pid

killed, rng = 0, random.Random(int(sys.argv[1]))
os.environ["HEXAPLA_CACHE"] = "elsewhere"
began = time.monotonic()
os.waitpid(child(), 0)
seconds = time.monotonic() - began
os.rename("pairs", "expected")
os.rename("summary.json", "expected.json")
os.environ["HEXAPLA_CACHE"] = "cache"
for _ in range(int(sys.argv[2])):
    pid = child()
    time.sleep(rng.random() ** 2 * seconds)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    killed += os.WIFSIGNALED(status)
run()
print(killed)
"""


@pytest.mark.parametrize(("seed", "times"), [(0, 9), pytest.param(1, 200, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_run_again_it_ends_with_the_same_bytes(here, seed, times):
    written(here / "plain.jsonl", generated(3000)[0])
    made, others = generated(500, seed=1, languages=("de", "tr"))
    written(here / "apart.jsonl", [*made, *others])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER, str(seed), str(times)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > times / 3
    contents = [
        {file.name: file.read_bytes() for file in Path(name).iterdir()} for name in ("pairs", "expected")
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) > 10
    assert Path("summary.json").read_bytes() == Path("expected.json").read_bytes()
    caches = [
        {file.relative_to(name): file.read_bytes() for file in Path(name).rglob("*") if file.is_file()}
        for name in ("cache", "elsewhere")
    ]
    # Scratch files of single writes may be left; all else is as if nothing had happened.
    assert {name: held for name, held in caches[0].items() if not name.name.startswith(".")} == caches[1]
