"""`hexapla cache`, called as a person calls it."""

import os
import time

import pytest

from hexapla.io import cache

DAY = 86400


@pytest.fixture(autouse=True)
def filled(tmp_path, monkeypatch):
    """Two translations of 2 MB, 40 and 1 days old, a benchmark of 1 MB, 3 days old, and a file of the user's."""
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path))
    places = {
        "old": (cache.entry("translate", "ab" * 8), 2, 40),
        "new": (cache.entry("translate", "cd" * 8), 2, 1),
        "benchmark": (tmp_path / "benchmarks" / "xquad-r-0123" / "de.json", 1, 3),
    }
    for path, megabytes, days in places.values():
        with cache.atomic_file(path) as file:
            file.write_bytes(bytes(megabytes * 10**6))
        used = time.time() - days * DAY
        os.utime(path, (used, used))
    os.utime(places["benchmark"][0].parent, (0, 0))
    (tmp_path / "photos").mkdir()
    return {name: path for name, (path, _, _) in places.items()}


def test_sizes_by_kind(hexapla, tmp_path):
    status, out, err = hexapla("cache")
    assert (status, err) == (0, "")
    assert [line.split("  ")[0] for line in out.splitlines()[4:]] == [
        "benchmarks",
        "translate",
        "all",
        "",
        out.splitlines()[-1],
    ]
    table = [line.split() for line in out.splitlines()]
    assert ["translate", "2", "4", "MB", "40", "days", "ago", "24", "h", "ago"] in table
    assert ["all", "3", "5", "MB", "40", "days", "ago", "24", "h", "ago"] in table
    assert out.splitlines()[-1] == "Not made by this version of Hexapla, so never removed: photos"


@pytest.mark.parametrize(
    ("flags", "gone", "size"),
    [
        (["--to", "3MB"], ["old"], "2 MB"),
        (["--to", "2.5 mb"], ["old", "benchmark"], "3 MB"),
        (["--to", "0B"], ["old", "benchmark", "new"], "5 MB"),
        (["--to", "5GB"], [], "0 B"),
        (["--older-than", "30d"], ["old"], "2 MB"),
        (["--older-than", "48h"], ["old", "benchmark"], "3 MB"),
        (["--older-than", "8w"], [], "0 B"),
        (["--older-than", "30d", "--to", "2MB"], ["old", "benchmark"], "3 MB"),
    ],
)
def test_pruning_to_a_size_or_an_age_and_only_when_asked(hexapla, filled, tmp_path, flags, gone, size):
    status, out, _ = hexapla("cache", *flags)
    assert status == 0
    assert out.splitlines()[-1] == f"--prune would remove {len(gone)} entries, {size}."
    assert all(path.exists() for path in filled.values())
    status, out, _ = hexapla("cache", "--prune", *flags)
    assert status == 0
    assert out.splitlines()[-1] == f"Removed {len(gone)} entries, {size}."
    assert [name for name, path in filled.items() if not path.exists()] == sorted(
        gone, key=list(filled).index
    )
    assert (tmp_path / "photos").is_dir()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--prune"], "hexapla cache: --prune: wants --to SIZE or --older-than AGE, or both"),
        (
            ["--to", "much"],
            "hexapla cache: Invalid value for '--to': 'much' has another form than 5GB or 500MB",
        ),
        (
            ["--older-than", "30"],
            "hexapla cache: Invalid value for '--older-than': '30' has another form than 30d,",
        ),
    ],
)
def test_mistakes_are_one_line_and_remove_nothing(hexapla, filled, flags, line):
    status, _, err = hexapla("cache", *flags)
    assert status == 2
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert all(path.exists() for path in filled.values())


def test_an_empty_cache(hexapla, tmp_path, monkeypatch):
    monkeypatch.setenv("HEXAPLA_CACHE", str(tmp_path / "none"))
    status, out, _ = hexapla("cache")
    assert status == 0
    assert out.splitlines()[-1].split()[:4] == ["all", "0", "0", "B"]
