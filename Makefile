# make repro: from nothing to the report.   make test: from nothing to the tests' verdict.
# The same commands serve a person and CI. PYTHON picks the interpreter (3.11 or newer).

PYTHON ?= python3
VENV   := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false

.PHONY: setup apertium repro plan paper test slow lint format ui gate quick clean

setup: $(VENV)/.done

# constraints.txt pins the whole resolution; pyproject.toml says what is wanted.
$(VENV)/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# A translator that needs no model hub, for the tests: put there where that can be done without asking.
APERTIUM := apertium apertium-eng-spa
apertium:
	@command -v apertium >/dev/null && apertium -l | grep -q eng-spa || \
	 { command -v apt-get >/dev/null && { [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null; } && \
	   $$([ "$$(id -u)" = 0 ] || echo sudo) sh -c 'apt-get -qq update && apt-get -qq install -y --no-install-recommends $(APERTIUM)' >/dev/null; } || \
	 echo "Not installed: $(APERTIUM) (apt-get install $(APERTIUM)); the tests that translate with it will be skipped."

repro: setup
	dvc repro
	@echo "Report: reports/report.html"

test: setup apertium
	python -m pytest -r s

# What takes minutes: the default encoder on the real XQuAD-R, which is fetched if it is not at hand.
slow: setup apertium
	python -m pytest -r s -m slow

lint: setup
	ruff check
	ruff format --check
	mypy
	lint-imports

format: setup
	ruff check --fix
	ruff format

# What a run of params.paper.yaml (PLAN=…: of another file) would fetch, translate and cost; does nothing of it.
PLAN ?= params.paper.yaml
plan: setup
	PYTHONPATH=src python -m hexapla plan --params $(PLAN)

# The paper's setting in a clone beside this one: a GPU and days. The same command goes on. See docs/scale.md.
PAPER ?= ../hexapla-paper
paper: setup
	test -d $(PAPER) || { git clone --quiet . $(PAPER) && cd $(PAPER) && git switch --quiet -c paper && cp params.paper.yaml params.yaml; }
	cd $(PAPER) && PYTHONPATH=src python -m hexapla plan && dvc repro

# The history of runs, on http://localhost:5000, for this machine only.
ui: setup
	mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000

# Does the candidate fall short of what was accepted? Exit status 1 when it does.
gate: setup
	PYTHONPATH=src python -m hexapla gate --scores reports/results/candidate/scores.json --accepted reports/accepted.json

# The whole pipeline in minutes, on a cut-down copy of the last commit: does every stage still do its work?
QUICK := $(CURDIR)/build/quick
quick: setup
	rm -rf $(QUICK)
	git clone --quiet . $(QUICK)
	cd $(QUICK) && dvc exp run --force \
	  -S 'translate.languages=[de,zh]' -S train.steps=4 -S train.batch_size=8 -S train.freeze_layers=8 \
	  -S 'comparison.recipes=[hybrid]' -S 'comparison.seeds=[13,14]' \
	  -S 'benchmarks=[{name: sample, path: data/sample/benchmark, languages: [de,en,zh]}]'
	test -s $(QUICK)/reports/report.html
	cd $(QUICK) && PYTHONPATH=src python -m hexapla compare reports/results/*

clean:
	rm -rf build .checkpoints .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
