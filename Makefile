# make demo: fit the sample photograph, then serve the web app.   make test: run all tests.   Both make .venv first.

PYTHON ?= python3 python3.12 python3.11 python3.10
VENV ?= .venv
OUT ?= out
HOST ?= 127.0.0.1
PORT ?= 7860
JOBS ?= auto

BIN := $(VENV)/bin
NODE_MODULES := .ci/node_modules
SUPPORTED := import sys; raise SystemExit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo serve install test lint notebooks badges validator clean
.DELETE_ON_ERROR:

help:
	@echo "make demo        fit the sample photograph (files in $(OUT)/) and serve the web app on http://$(HOST):$(PORT)"
	@echo "make serve       only the web app"
	@echo "make install     only .venv with what the app needs (another interpreter: make install PYTHON=python3.12)"
	@echo "make test        all tests, as many at a time as there are cores (some of them: make test JOBS=0 ARGS='tests/test_camera.py -k focal')"
	@echo "make lint        ruff and mypy"
	@echo "make notebooks   run the notebooks from top to bottom, in place"
	@echo "make badges      let the notebooks' Colab badges open a published copy (make badges REPO=owner/name)"
	@echo "make clean       remove .venv, $(OUT)/ and caches"

demo: install
	$(BIN)/python -m faceverse fit sample -o $(OUT)/
	@echo && echo "Files of the sample photograph:" && ls -1 $(OUT) | sed "s|^|  $(OUT)/|" && echo
	@$(MAKE) --no-print-directory serve

serve: install
	@echo "Web app: http://$(HOST):$(PORT) (stop with Ctrl+C)"
	GRADIO_SERVER_NAME=$(HOST) GRADIO_SERVER_PORT=$(PORT) $(BIN)/python app.py

install: $(VENV)/.stamp-run

test: $(VENV)/.stamp-dev validator
	FACEVERSE_GLTF_VALIDATOR="$(CURDIR)/$(NODE_MODULES)" $(BIN)/python -m pytest \
		--numprocesses $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.stamp-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

# The hour at which each cell ran would make every run a change.
define WITHOUT_HOURS
import nbformat, sys
for path in sys.argv[1:]:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(notebook, path)
endef
export WITHOUT_HOURS

notebooks: $(VENV)/.stamp-dev
	$(BIN)/jupyter-execute --inplace notebooks/*.ipynb
	@$(BIN)/python -c "$$WITHOUT_HOURS" notebooks/*.ipynb

badges:
	@case "$(REPO)" in *?/?*) ;; *) echo "name the published copy: make badges REPO=owner/name"; exit 1;; esac
	@for file in notebooks/[0-9]*.py notebooks/[0-9]*.ipynb; do \
		name=$$(basename "$${file%.*}"); \
		sed -i.old -e "s|\(colab.research.google.com/github/\)[^)]*|\1$(REPO)/blob/main/notebooks/$$name.ipynb|" \
			-e "s|git clone [^ ]* faceverse|git clone https://github.com/$(REPO) faceverse|" "$$file" && rm "$$file.old"; \
	done

# The Khronos glTF validator is an npm package; without npm the tests that need it are skipped.
validator:
	@if test -d $(NODE_MODULES)/gltf-validator; then :; \
	elif command -v npm >/dev/null; then \
		npm install --prefix .ci --no-save --no-package-lock --no-audit --no-fund --loglevel=error gltf-validator@2.0.0-dev.3.10; \
	else echo "npm not found: exported glTF files will not be validated"; fi

clean:
	rm -rf $(VENV) $(OUT) $(NODE_MODULES) build dist .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@for python in $(PYTHON); do \
		if $$python -c '$(SUPPORTED)' 2>/dev/null; then \
			echo "Making $(VENV) with $$($$python --version)"; \
			$$python -m venv $(VENV) && exit 0; \
			rm -rf $(VENV); exit 1; \
		fi; \
	done; \
	echo "No Python 3.10, 3.11 or 3.12 among: $(PYTHON). Name one: make install PYTHON=/path/to/python3.11" >&2; exit 1

$(VENV)/.stamp-run: requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -r requirements.txt
	$(BIN)/python -m pip install -q --no-deps -e .
	@touch $@

$(VENV)/.stamp-dev: requirements-dev.txt requirements-train.txt $(VENV)/.stamp-run
	$(BIN)/python -m pip install -q -r requirements-dev.txt
	$(BIN)/python -m pip install -q --no-deps -r requirements-train.txt
	@touch $@
