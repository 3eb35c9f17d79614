"""Databases: rows come through, and no password does."""

import sqlite3

import pytest

from hexapla.data.collect import databases
from hexapla.schema import UserError


@pytest.fixture
def url(tmp_path):
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as base:
        base.execute('CREATE TABLE "qa" (id INTEGER, question TEXT, passage TEXT)')
        rows = [(i, f"{i}?", f"The cat: {i} % of all.") for i in range(2500)]
        base.executemany("INSERT INTO qa VALUES (?, ?, ?)", rows)
    base.close()
    return f"sqlite:///{path}"


def test_a_table_and_a_select_give_rows_with_places(url):
    table = list(databases.read(url, "qa", "x"))
    assert len(table) == 2500
    assert table[1][0].endswith("a.db), row 2")
    assert table[1][1] == {"id": 1, "question": "1?", "passage": "The cat: 1 % of all."}
    query = "select question as q, passage from main.qa where passage like '%cat: 7 %' and question <> ':no'"
    assert [row for _, row in databases.read(url, query, "x")] == [
        {"q": "7?", "passage": "The cat: 7 % of all."}
    ]
    assert list(databases.read(url, "main.qa", "x")) == table


def test_the_environment_fills_the_url(url, monkeypatch):
    monkeypatch.setenv("BASE", url.removeprefix("sqlite:///"))
    with pytest.raises(UserError, match=r"no NOWHERE; `export NOWHERE=\.\.\.`"):
        next(databases.read("sqlite:///${NOWHERE}", "qa", "x"))
    assert next(databases.read("sqlite:///${BASE}", "qa", "x"))[1]["id"] == 0


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT nowhat FROM qa", "no such column: nowhat; check `url` and `query`"),
        ("nowhere", "no such table"),
        ("DROP TABLE qa", "wants a SELECT, or a table's name"),
        ("SELECT id, id FROM qa", "two columns are called 'id'"),
    ],
)
def test_a_bad_query_is_one_line(url, query, message):
    with pytest.raises(UserError, match=message) as caught:
        list(databases.read(url, query, "x"))
    assert "\n" not in str(caught.value)
    assert len(list(databases.read(url, "qa", "x"))) == 2500


def test_a_missing_file_is_not_made(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        list(databases.read(f"sqlite:///{tmp_path / 'b.db'}", "qa", "x"))
    assert not (tmp_path / "b.db").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+psycopg2://bob:hush@host.invalid/b", r"`pip install psycopg2-binary`"),
        ("mysql+pymysql://bob:hush@host.invalid/b", "`pip install pymysql`"),
        ("nosuch://bob:hush@host.invalid/b", "knows no 'nosuch'"),
        ("bob:hush@host", "not of the form"),
        ("postgresql://bob:hu@sh:hush@host:hush/b", "not of the form"),
    ],
)
def test_what_is_missing_is_named_without_name_and_password(url, message):
    with pytest.raises(UserError, match=message) as caught:
        list(databases.read(url, "qa", "x"))
    assert "hush" not in str(caught.value)
    assert "bob" not in str(caught.value)


def test_what_a_driver_says_shows_no_secrets(monkeypatch):
    import sqlalchemy as sa

    class Engine:
        def connect(self):
            refusal = Exception('password "it\'s/hush" refused for user "bob"\nmore')
            raise sa.exc.OperationalError("SELECT 1", None, refusal)

    monkeypatch.setenv("PASSWORD", "it's/hush")
    monkeypatch.setattr(databases, "_engine", lambda address, where: Engine())
    with pytest.raises(UserError, match=r"source .x. \(postgresql://host/b\)") as caught:
        list(databases.read("postgresql://bob:${PASSWORD}@host/b", "qa", "x"))
    assert str(caught.value).count("***") == 2
    assert not any(secret in str(caught.value) for secret in ("bob", "hush", "\n"))
