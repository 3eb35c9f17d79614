"""Great Expectations: it judges rows a batch at a time, and its pages show what was judged.

The rules are declared once (`expectations`) and read off its pages. A batch's verdicts come with what a page
shows of them; those of many batches are summed up to one page, so that the pages of ten million rows are as
many, and as large, as those of ten thousand.
"""

import html
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hexapla.data.validate.expectations import Rule
from hexapla.io import cache as store

Outcome = dict[str, Any]
"""What a page shows of a rule: its arguments, how many rows there were and failed, and the first of those."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The anchors' random ids and the times that Great Expectations writes into its pages.
_VOLATILE = re.compile(r"(?<=-body-)(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})|\d{8}T\d{6}\.\d{6}Z")
_UNSAFE = re.compile(r"[^\w-]+")
_SHOWN = 20
"""Rows that a page shows of those that failed a rule."""
_WHO = ["lang", "id"]


class Verdict(NamedTuple):
    rule: Rule
    rows: np.ndarray
    """int64: what the batch's column `row` has of those that failed, in order."""
    outcome: Outcome


def judge(frame: Any, wanted: Sequence[Rule]) -> list[Verdict]:
    """By each rule; `frame` is a pandas table of the rules' columns, `row`, `lang` and `id`."""
    import great_expectations as gx
    from great_expectations import expectations

    definition = _definition()  # makes the context that a suite wants
    suite = gx.ExpectationSuite(name="rows")
    for rule in wanted:
        suite.add_expectation(getattr(expectations, rule.kind)(**rule.arguments, meta={"name": rule.name}))
    shown = _harmless(frame.reset_index(drop=True))
    # Rows by their position: Great Expectations takes 0.2 ms to gather the columns that name a row.
    wanted_of_it = {"result_format": "COMPLETE", "return_unexpected_index_query": False}
    results = definition.get_batch(batch_parameters={"dataframe": shown}).validate(
        suite, result_format=wanted_of_it
    )
    found = {one.expectation_config.meta["name"]: one for one in results.results}
    return [_verdict(rule, found[rule.name], shown) for rule in wanted]


@cache
def _definition() -> Any:
    asset = _context(None).data_sources.add_pandas("table").add_dataframe_asset("part")
    return asset.add_batch_definition_whole_dataframe("all")


def _context(site: Path | None) -> Any:
    """A context in memory whose pages go to `site`; nothing is sent anywhere."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # is read at the import
    import great_expectations as gx
    from great_expectations.data_context.types import base as config

    pages = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    settings = config.DataContextConfig(
        # The default would also make, and leave behind, a temporary folder for pages.
        store_backend_defaults=config.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites={"pages": pages} if site else {},
        progress_bars=config.ProgressBarsConfig(globally=False, metric_calculations=False),
        analytics_enabled=False,
    )
    return gx.get_context(mode="ephemeral", project_config=settings)


def _harmless(frame: Any) -> Any:
    """A copy without markup, since Great Expectations puts values into its pages as they are."""

    def escape(value: Any) -> Any:
        return html.escape(value) if isinstance(value, str) else value

    return frame.apply(lambda column: column if column.dtype.kind in "bif" else column.map(escape))


def _verdict(rule: Rule, found: Any, shown: Any) -> Verdict:
    if found.exception_info.get("raised_exception"):
        raise RuntimeError(f"expectation '{rule.name}': {found.exception_info.get('exception_message')}")
    told = found.result
    places = np.sort(np.array(told.get("unexpected_index_list") or [], np.int64))
    first = shown[[rule.column, *(name for name in _WHO if name != rule.column)]].iloc[places[:_SHOWN]]
    outcome = {
        "name": rule.name,
        "type": found.expectation_config.type,
        "arguments": rule.arguments,
        "rows": int(told["element_count"]),
        "missing": int(told.get("missing_count") or 0),
        "failed": len(places),
        "first": [{name: _plain(value) for name, value in row.items()} for row in first.to_dict("records")],
    }
    return Verdict(rule, shown["row"].to_numpy()[places], outcome)


def _plain(value: Any) -> Any:
    """As JSON has it."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and value != value else value


def merged(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those of each rule summed up, in the rules' order; of two rules of one name, the first's arguments."""
    found: dict[str, Outcome] = {}
    for one in outcomes:
        if (sum_ := found.get(one["name"])) is None:
            found[one["name"]] = {**one, "first": list(one["first"])}
            continue
        for count in ("rows", "missing", "failed"):
            sum_[count] += one[count]
        sum_["first"] = (sum_["first"] + one["first"])[:_SHOWN]
    return list(found.values())


# --- pages -----------------------------------------------------------------------------------------


def write_pages(docs: Path, pages: Mapping[str, Sequence[Outcome]]) -> None:
    """Great Expectations' own site in the folder `docs`, replaced as a whole; a page for each title."""
    with store.atomic_folder(docs) as site:
        context = _context(site.resolve())
        for number, (title, outcomes) in enumerate(pages.items(), 1):
            # The name becomes a folder's and a file's.
            _add_page(context, f"{number:02d} {_UNSAFE.sub('_', title)}", outcomes)
        context.build_data_docs()
        _settle(site)


def _add_page(context: Any, name: str, outcomes: Sequence[Outcome]) -> None:
    import great_expectations as gx
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types import resource_identifiers as identifiers

    results = [_result(outcome) for outcome in outcomes]
    good = sum(result.success for result in results)
    run = RunIdentifier(run_name="pairs", run_time=_EPOCH)
    shown = ExpectationSuiteValidationResult(
        success=good == len(results),
        results=results,
        suite_name=name,
        statistics={
            "evaluated_expectations": len(results),
            "successful_expectations": good,
            "unsuccessful_expectations": len(results) - good,
            "success_percent": 100 * good / len(results) if results else None,
        },
        meta={
            "great_expectations_version": gx.__version__,
            "active_batch_definition": {"data_asset_name": "pairs"},
            "batch_parameters": None,
            "run_id": run,
            "validation_time": _EPOCH,
        },
    )
    suite = identifiers.ExpectationSuiteIdentifier(name)
    key = identifiers.ValidationResultIdentifier(suite, run, "pairs")
    context.validation_results_store.set(key, shown)


def _result(outcome: Outcome) -> Any:
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    rows, missing, failed = (outcome[name] for name in ("rows", "missing", "failed"))
    value = _shown_column(outcome)
    counts = Counter(where.get(value) for where in outcome["first"])
    found = {
        # The share that the page gives is of the rows that the rule looks at.
        "element_count": rows - missing if failed else rows,
        "missing_count": missing,
        "missing_percent": 100 * missing / rows if rows else 0.0,
        "unexpected_count": failed,
        "unexpected_percent": 100 * failed / (rows - missing) if rows > missing else 0.0,
        "unexpected_percent_total": 100 * failed / rows if rows else 0.0,
        "partial_unexpected_list": [where.get(value) for where in outcome["first"]],
        "partial_unexpected_counts": [{"value": v, "count": n} for v, n in counts.items()],
        "unexpected_index_column_names": _WHO,
        "unexpected_index_list": outcome["first"],
    }
    config = ExpectationConfiguration(
        type=outcome["type"], kwargs=outcome["arguments"], meta={"name": outcome["name"]}
    )
    return ExpectationValidationResult(
        success=not failed,
        expectation_config=config,
        result=found,
        meta={},
        exception_info={"raised_exception": False, "exception_message": None, "exception_traceback": None},
    )


def _shown_column(outcome: Outcome) -> str:
    return str(outcome["arguments"]["column"])


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
