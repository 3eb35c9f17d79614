"""Tables of databases, as rows; the only code that knows SQLAlchemy.

A password belongs into the environment: `${NAME}` in a URL stands for its variable, and neither name nor
password is ever shown.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hexapla.io.readers import Row
from hexapla.schema import UserError, first_line

_AT_ONCE = 1000
"""Rows that are fetched at a time."""

_PACKAGES = {
    "MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]",
}  # fmt: skip
"""Drivers whose package is called otherwise."""


def read(url: str, query: str, name: str) -> Iterator[Row]:
    """The rows of a SELECT, or of a table that is named, streamed where the driver can.

    Without ORDER BY, a database may give them in another order each time. `name` is the source's, for
    messages.

    Raises:
        UserError: a variable or the driver is missing, the database can't be reached, or refuses the query.
    """
    import sqlalchemy as sa

    try:
        address = sa.make_url(filled(url, name))
    except (sa.exc.ArgumentError, ValueError):  # the latter for a port, and with what follows it
        form = "dialect+driver://user:${PASSWORD}@host/database"
        raise UserError(f"source '{name}': url: not of the form {form}") from None
    where = f"source '{name}' ({address.get_backend_name()}://{address.host or ''}/{address.database or ''})"
    if address.get_backend_name() == "sqlite" and not Path(address.database or "").is_file():
        raise UserError(f"{where}: no such file")  # SQLite would make an empty one
    try:
        with _engine(address, where).connect() as connection:
            # Without parameters, a percent sign is one.
            options = {"yield_per": _AT_ONCE, "no_parameters": True}
            result = connection.execution_options(**options).exec_driver_sql(
                _select(query, connection.dialect.identifier_preparer.quote, where)
            )
            names = list(result.keys())
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise UserError(f"{where}: two columns are called '{twice}'; name one with AS")
            for number, row in enumerate(result, 1):
                yield f"{where}, row {number}", dict(zip(names, row, strict=True))
    except sa.exc.SQLAlchemyError as error:
        raise UserError(f"{where}: {_told(error, address)}") from None


def filled(url: str, name: str) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise UserError(f"source '{name}': the environment has no {found[1]}; `export {found[1]}=...`")
        # What stands for itself in a password means something else in a URL.
        return quote(os.environ[found[1]], safe="")

    return re.sub(r"\$\{(\w+)\}", value, url)


def _engine(address: Any, where: str) -> Any:
    import sqlalchemy as sa

    try:
        return sa.create_engine(address, poolclass=sa.pool.NullPool, hide_parameters=True)
    except sa.exc.NoSuchModuleError:
        raise UserError(f"{where}: SQLAlchemy knows no '{address.drivername}'") from None
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(error.name or "", error.name)
        raise UserError(f"{where}: the driver is missing; `pip install {package}`") from None


def _select(query: str, quote_name: Any, where: str) -> str:
    if re.fullmatch(r"[\w.]+", query.strip()):
        return f"SELECT * FROM {'.'.join(map(quote_name, query.strip().split('.')))}"  # noqa: S608 - quoted
    if not re.match(r"\s*(SELECT|WITH)\b", query, re.IGNORECASE):
        raise UserError(f"{where}: `query` wants a SELECT, or a table's name")
    return query


def _told(error: Exception, address: Any) -> str:
    """What went wrong, without the name and the password that some drivers repeat."""
    line = first_line(getattr(error, "orig", None) or error)
    if address.password:
        line = line.replace(address.password, "***")
    if address.username:
        line = re.sub(rf"(?<!\w){re.escape(address.username)}(?!\w)", "***", line)
    return f"{line}; check `url` and `query`"
