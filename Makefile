# `make repro` runs everything up to the report, and `make test` runs the tests. Both install what they need first.
# People and CI use the same commands. PYTHON chooses the interpreter (3.11 or newer).

PYTHON ?= python3
VENV   := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false

.PHONY: setup apertium repro plan paper test slow lint format ui gate quick clean

setup: $(VENV)/.done

# pyproject.toml says which packages are needed, and constraints.txt pins the version of every one.
$(VENV)/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# The tests translate with Apertium, which needs no model hub. Install it where that needs no password.
APERTIUM := apertium apertium-eng-spa
apertium:
	@command -v apertium >/dev/null && apertium -l | grep -q eng-spa || \
	 { command -v apt-get >/dev/null && { [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null; } && \
	   $$([ "$$(id -u)" = 0 ] || echo sudo) sh -c 'apt-get -qq update && apt-get -qq install -y --no-install-recommends $(APERTIUM)' >/dev/null; } || \
	 echo "Not installed: $(APERTIUM) (apt-get install $(APERTIUM)); the tests that translate with it will be skipped."

repro: setup
	dvc repro
	@echo "Report: reports/report.html"

# A process for each core, at most four, because each imports PyTorch. One that has finished takes tests from another.
IN_PARALLEL := --numprocesses logical --maxprocesses 4 --dist worksteal

test: setup apertium
	python -m pytest -r s $(IN_PARALLEL)

# Tests that take long: clusters, kills, several processes, and the default encoder on XQuAD-R, which is downloaded.
slow: setup apertium
	python -m pytest -r s -m slow $(IN_PARALLEL)

lint: setup
	ruff check
	ruff format --check
	mypy
	lint-imports

format: setup
	ruff check --fix
	ruff format

# Say what a run of params.paper.yaml (or of another file, PLAN=…) would download, translate and cost.
PLAN ?= params.paper.yaml
plan: setup
	PYTHONPATH=src python -m hexapla plan --params "$(PLAN)"

# Run the paper's setting in a clone next to this one; it takes a GPU and days. Run it again to continue; see docs/scale.md.
PAPER ?= ../hexapla-paper
paper: setup
	test -d "$(PAPER)" || { git clone --quiet . "$(PAPER)" && cd "$(PAPER)" && git switch --quiet -c paper && cp params.paper.yaml params.yaml; }
	cd "$(PAPER)" && PYTHONPATH=src python -m hexapla plan && dvc repro

# Show the history of runs on http://localhost:5000, to this machine only.
ui: setup
	mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000

# Compare the candidate with the accepted scores; exit status 1 if it falls short.
gate: setup
	PYTHONPATH=src python -m hexapla gate --scores reports/results/candidate/scores.json --accepted reports/accepted.json

# Run the whole pipeline in minutes, with small settings, in a clone of the last commit.
QUICK := build/quick
quick: setup
	rm -rf $(QUICK)
	git clone --quiet . $(QUICK)
	cd $(QUICK) && dvc exp run --force \
	  -S 'translate.languages=[de,zh]' -S train.steps=4 -S train.batch_size=8 -S train.freeze_layers=8 \
	  -S 'comparison.recipes=[hybrid]' -S 'comparison.seeds=[13,14]' \
	  -S 'benchmarks=[{name: sample, path: data/sample/benchmark, languages: [de,en,zh]}]'
	test -s $(QUICK)/reports/report.html
	cd $(QUICK) && PYTHONPATH=src python -m hexapla compare $$(dirname reports/results/*/details.json)

clean:
	rm -rf build .checkpoints .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
