"""Rows of databases, which are only ever read. No other code knows SQLAlchemy.

Nothing that a query says may change a database. SQLite's files are opened read-only. Elsewhere the query runs in a
transaction that is declared read-only where the database has such a thing, and that is always rolled back.
"""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hexapla.config import SqlSource
from hexapla.io.readers import Row
from hexapla.schema import UserError, first_line

_FETCHED_ROWS = 1000
_PACKAGES = {
    "MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]",
}  # fmt: skip
"""Packages of drivers whose module has another name."""
_READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    **dict.fromkeys(("postgresql", "mysql", "mariadb", "oracle"), "SET TRANSACTION READ ONLY"),
}
"""The statement after which a database refuses every change, by the name that SQLAlchemy gives to it."""
_WITHOUT_MEANING = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \[[^\]]*\] | --[^\n]* | /\*.*?\*/""",
    re.DOTALL | re.VERBOSE,
)
"""Texts, quoted names and comments of a query, in which words are no statements."""
_CHANGE = re.compile(
    r"\b(INSERT\s+INTO|DELETE\s+FROM|MERGE\s+INTO|REPLACE\s+INTO|UPDATE\s+\S+\s+SET|SELECT\s.*\sINTO\s)",
    re.IGNORECASE | re.DOTALL,
)
_log = logging.getLogger(__name__)


def find_address(source: SqlSource) -> str:
    """Return the address of a source's database, from `url` or from the environment variable that `url_env` names.

    Raises:
        UserError: the variable is not set.
    """
    if not source.url_env:
        return source.url
    if not (address := os.environ.get(source.url_env)):
        raise UserError(
            f"source '{source.title}': url_env: the environment has no {source.url_env}; "
            f"`export {source.url_env}=dialect://user:password@host/database`"
        )
    return address


def warn_of_password(source: SqlSource) -> None:
    """Log a line if `url` holds a password, which Git, DVC and MLflow would keep."""
    if re.match(r"[^/]+://[^/@]*:[^/@]+@", source.url):
        _log.warning(
            "source '%s': url: holds a password, which Git keeps; put the address into an environment variable "
            "and name that in `url_env`",
            source.title,
        )


def read_database(url: str, query: str, name: str) -> Iterator[Row]:
    """Yield the rows of a SELECT or of a named table, streamed where the driver can.

    Without ORDER BY, a database may give them in another order each time. Messages never show user name or password.

    Args:
        url: SQLAlchemy's address of the database.
        query: a table's name, or one query, which may begin with WITH.
        name: the source's, for messages.

    Raises:
        UserError: the driver is missing, the database can't be reached, it rejects the query, or the query is none.
    """
    import sqlalchemy as sa

    try:
        address = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # ValueError where the port is no number
        form = "dialect+driver://user:password@host/database"
        raise UserError(f"source '{name}': url: not of the form {form}") from None
    kind = address.get_backend_name()
    where = f"source '{name}' ({kind}://{address.host or ''}/{address.database or ''})"
    if kind == "sqlite" and not Path(address.database or "").is_file():
        raise UserError(f"{where}: no such file")  # SQLite would make an empty one
    try:
        with _create_engine(address, where).connect() as connection:
            if kind in _READ_ONLY:
                connection.exec_driver_sql(_READ_ONLY[kind])
            # Without `no_parameters`, a percent sign in the query would be one.
            options = {"yield_per": _FETCHED_ROWS, "no_parameters": True}
            result = connection.execution_options(**options).exec_driver_sql(
                _select(query, connection.dialect.identifier_preparer.quote, where)
            )
            names = list(result.keys())
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise UserError(f"{where}: two columns are called '{twice}'; name one with AS")
            for number, row in enumerate(result, 1):
                yield f"{where}, row {number}", dict(zip(names, row, strict=True))
            connection.rollback()
    except sa.exc.SQLAlchemyError as error:
        raise UserError(f"{where}: {_hide_login(error, address)}; check `url` and `query`") from None


def _create_engine(address: Any, where: str) -> Any:
    import sqlalchemy as sa

    options: dict[str, Any] = {"poolclass": sa.pool.NullPool, "hide_parameters": True}
    if address.drivername in ("sqlite", "sqlite+pysqlite"):
        file = f"file:{quote(str(Path(address.database).absolute()))}?mode=ro"
        options["creator"] = lambda: sqlite3.connect(file, uri=True)
    try:
        return sa.create_engine(address, **options)
    except sa.exc.NoSuchModuleError:
        raise UserError(f"{where}: SQLAlchemy knows no '{address.drivername}'") from None
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(error.name or "", error.name)
        raise UserError(f"{where}: the driver is missing; `pip install {package}`") from None


def _select(query: str, quote_name: Any, where: str) -> str:
    if re.fullmatch(r"[\w.]+", query.strip()):
        return f"SELECT * FROM {'.'.join(map(quote_name, query.strip().split('.')))}"  # noqa: S608 - quoted
    words = _WITHOUT_MEANING.sub(" x ", query).strip().rstrip("; \t\r\n")
    words = re.sub(r"^(\s*x\s+)+(?=\S)", "", words)  # comments before the query
    if not re.match(r"(SELECT|WITH)\b", words, re.IGNORECASE):
        raise UserError(f"{where}: `query` wants a SELECT, or a table's name")
    if ";" in words:
        raise UserError(f"{where}: `query` holds several statements; it wants one SELECT")
    if change := _CHANGE.search(words):
        raise UserError(f"{where}: `query` would change the database ({change[0].split()[0].upper()} …)")
    return query


def _hide_login(error: Exception, address: Any) -> str:
    """Return the error's first line without the user name and the password that some drivers repeat."""
    line = first_line(getattr(error, "orig", None) or error)
    if address.password:
        line = line.replace(address.password, "***")
    if address.username:
        line = re.sub(rf"(?<!\w){re.escape(address.username)}(?!\w)", "***", line)
    return line
