"""Databases are read and never changed, and no message shows a password."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from hexapla.config import SqlSource
from hexapla.data.collect import databases, sources
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
    table = list(databases.read_database(url, "qa", "x"))
    assert len(table) == 2500
    assert table[1][0].endswith("a.db), row 2")
    assert table[1][1] == {"id": 1, "question": "1?", "passage": "The cat: 1 % of all."}
    query = "select question as q, passage from main.qa where passage like '%cat: 7 %' and question <> ':no'"
    assert [row for _, row in databases.read_database(url, query, "x")] == [
        {"q": "7?", "passage": "The cat: 7 % of all."}
    ]
    assert list(databases.read_database(url, "main.qa", "x")) == table


def test_the_environment_holds_the_address(url, monkeypatch):
    source = SqlSource(url_env="FAQ_URL", query="qa")
    monkeypatch.delenv("FAQ_URL", raising=False)
    with pytest.raises(
        UserError, match=r"source 'sql': url_env: the environment has no FAQ_URL; `export FAQ_URL=dial"
    ):
        databases.find_address(source)
    monkeypatch.setenv("FAQ_URL", url)
    assert databases.find_address(source) == url
    assert next(sources.read_rows(source, Path()))[1]["id"] == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "give either `url` or `url_env`"),
        ({"url": "sqlite:///a.db", "url_env": "FAQ_URL"}, "give either `url` or `url_env`"),
        (
            {"url": "postgresql://me:${PASSWORD}@host/b"},
            r"holds '\$\{', which DVC would fill in; .* `url_env`",
        ),
        ({"url_env": "postgresql://me:hush@host/b"}, "wants the name of an environment variable"),
    ],
)
def test_an_address_is_given_once_and_without_placeholders(keys, message):
    with pytest.raises(ValueError, match=message) as caught:
        SqlSource(query="qa", **keys)
    assert "hush" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("postgresql://me:hush@host/b", True),
        ("mysql+pymysql://me:hu%40sh@host:3306/b", True),
        ("postgresql://me@host/b", False),
        ("sqlite:///data/a:b@c.db", False),
    ],
)
def test_a_password_in_the_file_is_warned_of_and_not_shown(url, warned, caplog):
    databases.warn_of_password(SqlSource(url=url, query="qa"))
    assert ("url: holds a password" in caplog.text) == warned
    assert "hush" not in caplog.text


_CHANGES = [
    "WITH gone AS (SELECT 1) DELETE FROM qa RETURNING *",
    "with x as (select 1) insert into qa select 1, 'a', 'b' returning id",
    "WITH x AS (SELECT 1)\nUPDATE qa SET question = '' RETURNING *",
    "/* all */ WITH x AS (SELECT 1) REPLACE INTO qa VALUES (1, 'a', 'b') RETURNING id",
    "SELECT * INTO copy FROM qa",
    "SELECT 1; DROP TABLE qa",
    "-- harmless\nDELETE FROM qa RETURNING *",
    "PRAGMA user_version = 7",
    "ATTACH 'other.db' AS other",
]


@pytest.mark.parametrize("query", _CHANGES)
def test_a_query_that_would_change_the_database_is_refused(url, query, tmp_path):
    before = (tmp_path / "a.db").read_bytes()
    with pytest.raises(UserError, match=r"would change the database|wants a SELECT|wants one SELECT"):
        list(databases.read_database(url, query, "x"))
    assert (tmp_path / "a.db").read_bytes() == before


@pytest.mark.parametrize("query", _CHANGES[:4])
def test_sqlite_itself_refuses_what_the_words_do_not_show(url, query, tmp_path, monkeypatch):
    monkeypatch.setattr(databases, "_select", lambda given, *_: given)
    before = (tmp_path / "a.db").read_bytes()
    with pytest.raises(UserError, match="readonly database"):
        list(databases.read_database(url, query, "x"))
    assert (tmp_path / "a.db").read_bytes() == before


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM qa WHERE question <> 'DELETE FROM qa; --'",
        "-- DELETE FROM qa\nSELECT id FROM qa;\n",
        "WITH x AS (SELECT id FROM qa) SELECT id, replace('a', 'a', 'b') AS \"INSERT INTO\" FROM x",
        "/* UPDATE qa SET id = 1 */ SELECT id FROM qa",
    ],
)
def test_words_in_texts_names_and_comments_change_nothing(url, query):
    assert len(list(databases.read_database(url, query, "x"))) == 2500


@pytest.mark.parametrize("name", ["a b.db", "a?mode=rwc.db", "a#b.db", "100%41.db"])
def test_files_with_odd_names_are_read(url, name, tmp_path):
    (tmp_path / "a.db").rename(tmp_path / name)
    address = sa.URL.create("sqlite", database=str(tmp_path / name)).render_as_string()
    assert len(list(databases.read_database(address, "qa", "x"))) == 2500


def test_other_databases_are_asked_for_a_read_only_transaction_that_is_rolled_back(url, monkeypatch):
    """No server is here, so SQLite stands in for the database and shows which statements it gets."""
    statements, ends = [], []
    engine = sa.create_engine(url)
    sa.event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    sa.event.listen(engine, "rollback", lambda _: ends.append("rollback"))
    sa.event.listen(engine, "commit", lambda _: ends.append("commit"))
    monkeypatch.setattr(databases, "_create_engine", lambda *_: engine)
    monkeypatch.setitem(databases._READ_ONLY, "postgresql", "SELECT 'SET TRANSACTION READ ONLY'")
    assert len(list(databases.read_database("postgresql://host/b", "qa", "x"))) == 2500
    assert statements[0] == "SELECT 'SET TRANSACTION READ ONLY'"
    assert ends == ["rollback"]


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
        list(databases.read_database(url, query, "x"))
    assert "\n" not in str(caught.value)
    assert len(list(databases.read_database(url, "qa", "x"))) == 2500


def test_a_missing_file_is_not_made(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        list(databases.read_database(f"sqlite:///{tmp_path / 'b.db'}", "qa", "x"))
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
        list(databases.read_database(url, "qa", "x"))
    assert "hush" not in str(caught.value)
    assert "bob" not in str(caught.value)


def test_what_a_driver_says_shows_no_secrets(monkeypatch):
    class Engine:
        def connect(self):
            refusal = Exception('password "it\'s/hush" refused for user "bob"\nmore')
            raise sa.exc.OperationalError("SELECT 1", None, refusal)

    monkeypatch.setattr(databases, "_create_engine", lambda address, where: Engine())
    with pytest.raises(UserError, match=r"source .x. \(postgresql://host/b\)") as caught:
        list(databases.read_database("postgresql://bob:it's%2Fhush@host/b", "qa", "x"))
    assert str(caught.value).count("***") == 2
    assert not any(secret in str(caught.value) for secret in ("bob", "hush", "\n"))
