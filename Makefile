# make demo: the whole story in a few minutes. make test: the tests. Both set everything up first.
VENV ?= .venv
PYTHON ?= python3
RUN := $(VENV)/bin/python -m

.PHONY: help demo test test-java test-real test-slow test-clients lint clean

help:
	@echo "make demo       make data, train, evaluate, caption: the whole story (3 to 4 minutes)"
	@echo "make test       the default tests: no GPU, Java, network or outside data needed"
	@echo "make test-java  tests against the Java tools of pycocoevalcap"
	@echo "make test-real  tests on real data: make test-real RLCAP_DATA=folder-that-holds-flickr8k"
	@echo "make test-slow  tests that train for minutes"
	@echo "make test-clients  other people's agents and captioners; installs them first"
	@echo "make lint       ruff, mypy, import-linter"

demo: $(VENV)/.ready
	$(RUN) rlcap demo --out demo

test: $(VENV)/.ready
	$(RUN) pytest -n 2

test-java: $(VENV)/.ready
	$(RUN) pytest -m 'java and not real'

test-real: $(VENV)/.ready
	@test -n "$(RLCAP_DATA)" || { echo "make test-real needs RLCAP_DATA=folder-that-holds-flickr8k"; exit 2; }
	RLCAP_DATA="$(RLCAP_DATA)" $(RUN) pytest -m real

test-slow: $(VENV)/.ready
	$(RUN) pytest -m slow

test-clients: $(VENV)/.ready
	$(RUN) pip install --quiet --editable '.[dev,rl,hf]'
	$(RUN) pytest -m clients

# mypy and import-linter look at the unpacked wheel: they cannot follow the import hooks of an editable install.
lint: $(VENV)/.ready
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	rm -rf build/lib build/wheel build/unpacked && mkdir -p build
	$(RUN) build --wheel --no-isolation --outdir build/wheel . > build/wheel.log 2>&1 || { cat build/wheel.log; exit 1; }
	$(RUN) zipfile -e build/wheel/*.whl build/unpacked
	cd build/unpacked && MYPYPATH=. "$(abspath $(VENV))/bin/python" -m mypy --config-file ../../pyproject.toml -p rlcap
	cd build/unpacked && PYTHONPATH=. "$(abspath $(VENV))/bin/python" -c "from importlinter.cli import lint_imports_command as main; main()" --config ../../pyproject.toml

$(VENV)/.ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --upgrade pip
	$(RUN) pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf build demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
