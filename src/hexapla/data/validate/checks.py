"""The rules that a row must meet to be trained on, and Great Expectations, which applies them.

Rules are declared once, under the names that the report uses. `check_frame` turns a list of rules into a
suite, a validation definition and a checkpoint, runs it on the rows of one language and source, and reduces
what comes back to a `RuleResult`: plain JSON without times or random ids, so that the same table always gives
the same bytes, and results of any number of batches can be added up.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypedDict

import numpy as np
from jaxtyping import Int64

_LANGUAGE_CODE = r"^[a-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*\Z"
EXAMPLES = 5
"""Failing rows that a `RuleResult` keeps to be shown."""


def is_language_code(lang: str) -> bool:
    """Whether a text looks like a language code, such as de or zh-Hant."""
    return re.match(_LANGUAGE_CODE, lang) is not None


# --- rules -----------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """An expectation about one column."""

    name: str
    """The name in reports and in the column `reasons`."""
    expectation: str
    """The class of Great Expectations."""
    arguments: dict[str, Any]
    shows: str = ""
    """The column whose value explains a failure; '' where the name says it all."""


def row_rules(
    lang: str, bounds: Mapping[str, float], *, identified: Sequence[str], answer_in_passage: bool
) -> list[Rule]:
    """List the rules that a row meets, or fails, by itself.

    Args:
        lang: the rows' language; '' for rows whose column `lang` holds no language code.
        bounds: the limits by name (`min_cosine`, …), as `Validate.bounds` gives them.
        identified: the texts whose language is checked: any of `question` and `passage`.
        answer_in_passage: whether the passage must contain the answer.
    """
    code = {"column": "lang", "regex": _LANGUAGE_CODE}
    rules = [_present(name) for name in ("id", "lang", "passage_id")]
    rules.append(Rule("language code", "ExpectColumnValuesToMatchRegex", code, "lang"))
    for text in ("question", "passage"):
        chars, share = f"{text}_chars", f"{text}_script"
        rules.append(_between(f"{text} not empty", chars, 1, None))
        rules.append(_between(f"{text} length", chars, bounds[f"min_{chars}"], bounds[f"max_{chars}"]))
        rules.append(_between(f"{text} script", share, bounds["min_script_share"], None))
    low, high = bounds["min_length_ratio"], bounds["max_length_ratio"]
    rules.append(_between("passage length relative to the English", "length_ratio", low, high))
    rules += [_equal(f"{text} language", f"{text}_language", lang, shows=True) for text in identified]
    rules.append(_between("not a copy of the English", "copy_share", None, bounds["max_copy_share"]))
    rules.append(_between("numbers kept", "numbers_kept", bounds["min_numbers_kept"], None))
    rules.append(_between("meaning kept", "cosine", bounds["min_cosine"], None))
    if answer_in_passage:
        rules.append(_equal("answer in the passage", "answer_found", True))
    absent = {"column": "in_benchmark"}
    rules.append(Rule("not in a benchmark", "ExpectColumnValuesToBeNull", absent, "in_benchmark"))
    return rules


def _present(name: str) -> Rule:
    return Rule(f"{name} present", "ExpectColumnValuesToNotBeNull", {"column": name})


def _between(name: str, column: str, low: float | None, high: float | None) -> Rule:
    bounds = {"column": column, "min_value": low, "max_value": high}
    return Rule(name, "ExpectColumnValuesToBeBetween", bounds, column)


def _equal(name: str, column: str, value: Any, *, shows: bool = False) -> Rule:
    only = {"column": column, "value_set": [value]}
    return Rule(name, "ExpectColumnValuesToBeInSet", only, column if shows else "")


TABLE_RULES = [
    _equal("one row an id and language", "only_row", True),
    _equal("English row kept", "english_kept", True),
    _equal("no repeated pair", "seen_before", False),
]
"""The rules about a row and all other rows, for which the whole table has to be known."""


# --- Great Expectations ----------------------------------------------------------------------------


class RuleResult(TypedDict):
    """What became of one rule: JSON that does not change from run to run."""

    name: str
    expectation: str
    column: str
    rows: int
    missing: int
    """Rows without a value, which the rule does not judge."""
    failed: int
    examples: list[dict[str, Any]]
    """The first failing rows: `id`, `lang`, and `value` where the rule shows one."""


class RuleCheck(NamedTuple):
    """One rule, applied to a table."""

    rule: Rule
    failed: Int64[np.ndarray, " failing"]
    """What the table's column `row` holds for the rows that fail, ascending."""
    result: RuleResult


class _Checkpoints:
    """A project of Great Expectations in memory, with a suite and a checkpoint for each list of rules.

    Great Expectations keeps the result of every run in the project; as it holds no values, but only positions
    of failing rows, that is about 8 bytes for each failure.
    """

    def __init__(self) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported
        import great_expectations as gx
        from great_expectations.data_context.types import base

        settings = base.DataContextConfig(
            # The default creates a temporary folder for pages, and never removes it.
            store_backend_defaults=base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            progress_bars=base.ProgressBarsConfig(globally=False, metric_calculations=False),
            analytics_enabled=False,
        )
        self._context = gx.get_context(mode="ephemeral", project_config=settings)
        asset = self._context.data_sources.add_pandas("table").add_dataframe_asset("rows")
        self._batch = asset.add_batch_definition_whole_dataframe("all")
        self._known: dict[str, Any] = {}

    def run(self, rules: Sequence[Rule], frame: Any) -> list[RuleCheck]:
        """See `check_frame`."""
        key = repr(rules)
        if key not in self._known:
            self._known[key] = self._add_checkpoint(rules, f"rules-{len(self._known)}")
        frame = frame.reset_index(drop=True)  # failing rows are named by their position
        (validation,) = self._known[key].run(batch_parameters={"dataframe": frame}).run_results.values()
        found = {one.expectation_config.meta["name"]: one for one in validation.results}
        return [_reduce(rule, found[rule.name], frame) for rule in rules]

    def _add_checkpoint(self, rules: Sequence[Rule], name: str) -> Any:
        import great_expectations as gx

        expectations = [
            getattr(gx.expectations, rule.expectation)(**rule.arguments, meta={"name": rule.name})
            for rule in rules
        ]
        suite = self._context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
        definition = self._context.validation_definitions.add(
            gx.ValidationDefinition(name=name, data=self._batch, suite=suite)
        )
        # Values and queries of failing rows are not needed, and take most of the time to be gathered.
        wanted = {
            "result_format": "COMPLETE",
            "partial_unexpected_count": 0,
            "exclude_unexpected_values": True,
            "return_unexpected_index_query": False,
        }
        checkpoint = gx.Checkpoint(name=name, validation_definitions=[definition], result_format=wanted)
        return self._context.checkpoints.add(checkpoint)


@cache
def _checkpoints() -> _Checkpoints:
    """Return the process's only project: making one, and a suite, takes longer than checking a few rows."""
    return _Checkpoints()


def check_frame(rules: Sequence[Rule], frame: Any) -> list[RuleCheck]:
    """Apply rules to a pandas table, in the rules' order.

    Args:
        rules: what to check.
        frame: the rules' columns and `row`, `id` and `lang`.

    Raises:
        RuntimeError: Great Expectations could not evaluate a rule.
    """
    return _checkpoints().run(rules, frame)


def _reduce(rule: Rule, found: Any, frame: Any) -> RuleCheck:
    counts = found.result
    if "element_count" not in counts:
        raise RuntimeError(f"expectation '{rule.name}': {found.exception_info}")
    places = np.sort(np.array(counts.get("unexpected_index_list") or [], np.int64))
    columns = {"id": "id", "lang": "lang"} | ({"value": rule.shows} if rule.shows else {})
    first = frame.iloc[places[:EXAMPLES]]
    values = [first[column].tolist() for column in columns.values()]
    result = RuleResult(
        name=rule.name,
        expectation=found.expectation_config.type,
        column=rule.arguments["column"],
        rows=int(counts["element_count"]),
        missing=int(counts.get("missing_count") or 0),
        failed=len(places),
        examples=[dict(zip(columns, map(_plain, row), strict=True)) for row in zip(*values, strict=True)],
    )
    return RuleCheck(rule, frame["row"].to_numpy()[places], result)


def _plain(value: Any) -> Any:
    """NaN is what pandas makes of a missing value, and JSON does not have it."""
    return None if isinstance(value, float) and value != value else value


def add_results(results: Iterable[RuleResult]) -> list[RuleResult]:
    """Add up the results of rules with the same name, in the order in which the names first appear."""
    sums: dict[str, RuleResult] = {}
    for one in results:
        if (known := sums.get(one["name"])) is None:
            sums[one["name"]] = RuleResult(**{**one, "examples": list(one["examples"])})
            continue
        known["rows"] += one["rows"]
        known["missing"] += one["missing"]
        known["failed"] += one["failed"]
        known["examples"] = (known["examples"] + one["examples"])[:EXAMPLES]
    return list(sums.values())
