"""What a row must meet to be trained on, and which rows do not meet it.

Great Expectations judges, so that the rules are declared once and its pages show them. Rows are judged
in two rounds: whether a pair's English row is kept, and whether its text was seen before, depend on
what the first round rejected. The whole table is in memory here, unlike in training.
"""

import html
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from hexapla import store, traits
from hexapla.languages import SCRIPTS, Identifier, base
from hexapla.records import PAIR_COLUMNS, Mistake

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The anchors' random ids and the times that Great Expectations writes into its pages.
_VOLATILE = re.compile(r"(?<=-body-)(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})|\d{8}T\d{6}\.\d{6}Z")


class Rule(NamedTuple):
    """An expectation under the name that our reports use; `shows` is the column that explains a failure."""

    name: str
    kind: str
    arguments: dict[str, Any]
    shows: str = ""

    @property
    def column(self) -> str:
        given = self.arguments
        pair = (given.get("column_A"), given.get("column_B"))
        return ", ".join(given.get("column_list") or [name for name in (given.get("column"), *pair) if name])


class Verdict(NamedTuple):
    rule: Rule
    expectation: str
    """The rule's kind as Great Expectations writes it: expect_column_values_to_be_between."""
    rows: list[int]
    """Positions of the rows that failed, in order."""
    failed: bool


class Checked(NamedTuple):
    verdicts: list[Verdict]
    reasons: dict[int, list[str]]
    """Per rejected row, each expectation that it failed, with the value where that explains it."""
    matches: dict[str, int]
    """Per benchmark, the rows that hold one of its texts."""
    identifier: str | None
    not_checked: dict[str, list[str]]
    """`script`, `language`: the languages of which it could not, or should not, be checked."""


def check(
    table: Any,
    *,
    origin: str,
    benchmarks: Mapping[str, AbstractSet[str]],
    docs: Path,
    language: str,
    answer_in_passage: bool,
    **bounds: float,
) -> Checked:
    """Judge every row, and leave Great Expectations' own pages in the folder `docs`.

    Args:
        table: the parallel table, as `store.read_pairs` gives it.
        origin: the table's file, for messages.
        benchmarks: per benchmark its texts, normalised; none may be a row's question or passage.
        docs: the folder; replaced as a whole.
        language: the texts whose language is identified: passage, both or off.
        answer_in_passage: whether an answer must stand in its passage.
        **bounds: min_ and max_ of question_chars, passage_chars, length_ratio; min_script_share.

    Raises:
        Mistake: the table's columns are not exactly a parallel table's, or not text.

    Negatives are not judged here: a bad one is dropped from its row, by `traits.fault`.
    """
    for field in table.drop_columns("negatives").schema:
        if str(field.type) not in ("string", "large_string"):
            raise Mistake(f"{origin}: column '{field.name}' holds {field.type}, wants text; run `dvc repro`")
    languages = sorted(set(table["lang"].fill_null("").to_pylist()))
    identifier = Identifier(languages) if language != "off" else None
    identified = {"off": (), "passage": ("passage",), "both": ("question", "passage")}[language]
    with store.whole_folder(docs) as site:
        context = _context(site)
        if _judge(context, "table", _TABLE, table.slice(0, 0).to_pandas())[0].failed:
            raise Mistake(f"{origin}: its columns are not exactly {', '.join(PAIR_COLUMNS)}; run `dvc repro`")
        rows = list(store.iter_pairs(table))
        frame = _frame(table, traits.measure(rows, benchmarks, identifier, identified))
        wanted = rules(identified=identified, answer_in_passage=answer_in_passage, **bounds)
        verdicts = _judge(context, "rows", wanted, frame)
        rejected = {row for verdict in verdicts for row in verdict.rows}
        frame[["english_kept", "seen_before"]] = list(traits.together(rows, frame["pair_key"], rejected))
        verdicts += _judge(context, "pairs", _PAIRS, frame)
        context.build_data_docs()
        _settle(site)
    leaks = [value.split(", ") for value in frame["in_benchmark"] if isinstance(value, str)]
    return Checked(
        verdicts=verdicts,
        reasons=_reasons(verdicts, frame),
        matches={name: sum(name in names for names in leaks) for name in benchmarks},
        identifier=identifier.name if identifier else None,
        not_checked={
            "script": [lang for lang in languages if base(lang) not in SCRIPTS],
            "language": [lang for lang in languages if not identifier or lang not in identifier.known],
        },
    )


def _frame(table: Any, measured: Iterable[traits.Traits]) -> Any:
    import pandas as pd

    beside = pd.DataFrame(measured, columns=traits.Traits._fields)
    for name in ("length_ratio", "question_script", "passage_script"):
        beside[name] = beside[name].astype(float)  # of None alone, pandas makes no numbers
    texts = table.drop_columns("negatives").to_pandas()
    return pd.concat([texts, beside], axis=1).assign(row=range(table.num_rows))


def _reasons(verdicts: Sequence[Verdict], frame: Any) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for verdict in verdicts:
        shows = verdict.rule.shows
        for row in verdict.rows:
            value = frame[shows][row] if shows else ""
            value = f"{value:.3g}" if isinstance(value, float) else value
            found.setdefault(row, []).append(f"{verdict.rule.name}: {value}" if shows else verdict.rule.name)
    return found


# --- what is expected ------------------------------------------------------------------------


def rules(*, identified: Sequence[str], answer_in_passage: bool, **bounds: float) -> list[Rule]:
    """What is expected of a row by itself, and beside its English row; arguments as `check` has them."""
    code = {"column": "lang", "regex": r"^[a-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*$"}
    unique = {"column_list": ["id", "lang"], "ignore_row_if": "any_value_is_missing"}
    wanted = [_present(name) for name in ("id", "lang", "passage_id")]
    wanted.append(Rule("language code", "ExpectColumnValuesToMatchRegex", code, "lang"))
    wanted.append(Rule("one row an id and language", "ExpectCompoundColumnsToBeUnique", unique))
    for text in ("question", "passage"):
        chars, share = f"{text}_chars", f"{text}_script"
        wanted.append(_between(f"{text} not empty", chars, 1, None))
        wanted.append(_between(f"{text} length", chars, bounds[f"min_{chars}"], bounds[f"max_{chars}"]))
        wanted.append(_between(f"{text} script", share, bounds["min_script_share"], None))
    low, high = bounds["min_length_ratio"], bounds["max_length_ratio"]
    wanted.append(_between("passage length beside the English", "length_ratio", low, high))
    wanted += [_same(f"{text} language", "lang", f"{text}_language") for text in identified]
    wanted.append(_absent("not a copy of the English", "copy_of_english"))
    if answer_in_passage:
        wanted.append(_is("answer in the passage", "answer_found", True))
    return [*wanted, _absent("not in a benchmark", "in_benchmark")]


def _present(name: str) -> Rule:
    return Rule(f"{name} present", "ExpectColumnValuesToNotBeNull", {"column": name})


def _absent(name: str, column: str) -> Rule:
    return Rule(name, "ExpectColumnValuesToBeNull", {"column": column}, column)


def _between(name: str, column: str, low: float, high: float | None) -> Rule:
    bounds = {"column": column, "min_value": low, "max_value": high}
    return Rule(name, "ExpectColumnValuesToBeBetween", bounds, column)


def _same(name: str, column: str, other: str) -> Rule:
    pair = {"column_A": column, "column_B": other, "ignore_row_if": "either_value_is_missing"}
    return Rule(name, "ExpectColumnPairValuesToBeEqual", pair, other)


def _is(name: str, column: str, value: bool) -> Rule:
    return Rule(name, "ExpectColumnValuesToBeInSet", {"column": column, "value_set": [value]})


_TABLE = [Rule("columns", "ExpectTableColumnsToMatchOrderedList", {"column_list": list(PAIR_COLUMNS)})]
_PAIRS = [_is("English row kept", "english_kept", True), _is("no repeated pair", "seen_before", False)]


# --- Great Expectations ----------------------------------------------------------------------


def _context(site: Path) -> Any:
    """A context in memory whose pages go to `site`; nothing is sent anywhere."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # is read at the import
    import great_expectations as gx
    from great_expectations.data_context.types import base as config

    pages = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site.resolve())},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    settings = config.DataContextConfig(
        # The default would also make, and leave behind, a temporary folder for pages.
        store_backend_defaults=config.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites={"pages": pages},
        progress_bars=config.ProgressBarsConfig(globally=False, metric_calculations=False),
        analytics_enabled=False,
    )
    return gx.get_context(mode="ephemeral", project_config=settings)


def _judge(context: Any, name: str, wanted: Sequence[Rule], frame: Any) -> list[Verdict]:
    import great_expectations as gx
    from great_expectations import expectations
    from great_expectations.core.run_identifier import RunIdentifier

    suite = gx.ExpectationSuite(name=name)
    for rule in wanted:
        suite.add_expectation(getattr(expectations, rule.kind)(**rule.arguments, meta={"name": rule.name}))
    asset = context.data_sources.add_pandas(name).add_dataframe_asset("pairs")
    batch = asset.add_batch_definition_whole_dataframe("all")
    judged = gx.ValidationDefinition(name=name, data=batch, suite=context.suites.add(suite))
    checkpoint = gx.Checkpoint(
        name=name,
        validation_definitions=[context.validation_definitions.add(judged)],
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["row", "lang", "id"],
            "return_unexpected_index_query": False,
        },
    )
    outcome = context.checkpoints.add(checkpoint).run(
        batch_parameters={"dataframe": _harmless(frame)},
        run_id=RunIdentifier(run_name="pairs", run_time=_EPOCH),
    )
    (result,) = outcome.run_results.values()
    found = {one.expectation_config.meta["name"]: one for one in result.results}
    return [_verdict(rule, found[rule.name]) for rule in wanted]


def _harmless(frame: Any) -> Any:
    """A copy without markup, since Great Expectations puts values into its pages as they are."""

    def escape(value: Any) -> Any:
        return html.escape(value) if isinstance(value, str) else value

    return frame.apply(lambda column: column if column.dtype.kind in "bif" else column.map(escape))


def _verdict(rule: Rule, found: Any) -> Verdict:
    if found.exception_info.get("raised_exception"):
        raise RuntimeError(f"expectation '{rule.name}': {found.exception_info.get('exception_message')}")
    named = found.result.get("unexpected_index_list") or ()
    rows = sorted(int(where["row"]) for where in named)
    return Verdict(rule, found.expectation_config.type, rows, not found.success)


def _settle(site: Path) -> None:
    """Replace what differs from run to run, so that the same table gives the same pages.

    Times become 1970, and random ids are numbered by first appearance within their page.
    """
    for page in sorted(site.rglob("*.html")):
        numbers: dict[str, str] = {}

        def settled(match: re.Match[str], numbers: dict[str, str] = numbers) -> str:
            if not match["id"]:
                return _EPOCH.strftime("%Y%m%dT%H%M%S.%fZ")
            return numbers.setdefault(match["id"], f"id-{len(numbers)}")

        page.write_text(_VOLATILE.sub(settled, page.read_text(encoding="utf-8")), encoding="utf-8")
