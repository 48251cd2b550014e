# make demo | test | lint | clean. Needs Python 3.11 or newer with pip; everything else is installed into .venv.
# PYTHON=python3.12 chooses the interpreter, COMFYUI_PATH=... the ComfyUI that the host tests start. COMFYUI_PATH=A:B
# tests on several: the first in .venv, the second in .venv-2, a layer above it with that ComfyUI's own requirements.

PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check --no-input
COMFYUI := $(shell COMFYUI_PATH='$(COMFYUI_PATH)' $(PYTHON) tests/host/comfyui.py)
ifeq ($(.SHELLSTATUS),1)
$(error no ComfyUI where COMFYUI_PATH points: correct it or unset it)
endif

# With a ComfyUI its own requirements rule (torch and torchvision must be built for each other); a stamp for each case.
# torchaudio comes after them and without its dependencies: tests/host/environments.py says why.
ifeq ($(COMFYUI),)
DEMO_STAMP := $(VENV)/.demo
TEST_STAMP := $(VENV)/.test
TEST_NEEDS := -c tests/constraints.txt -e '.[test]'
else
DEMO_STAMP := $(VENV)/.test-with-comfyui
TEST_STAMP := $(DEMO_STAMP)
COMFYUI_NEEDS := $(VENV)/comfyui-requirements.txt
TEST_NEEDS := -e '.[test]' -r $(COMFYUI_NEEDS) torchvision playwright
endif

.PHONY: demo test lint clean FORCE

# Learns a relation on the bundled miniworld, then draws with it: out/demo/sheet.png, report.md and the LoRA.
demo: $(DEMO_STAMP)
	$(BIN)/python -m training.miniworld --out out/demo demo
ifneq ($(COMFYUI),)
	COMFYUI_PATH='$(COMFYUI)' $(BIN)/python -m tests.host.run_examples --out out/demo/comfyui
endif

test: $(TEST_STAMP)
	$(BIN)/python -m tests.each_host $(PYTEST_ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) $(VENV)-[0-9] out *.egg-info .pytest_cache .ruff_cache .hypothesis node.zip
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml tests/constraints.txt | $(BIN)/python
	$(PIP) install -c tests/constraints.txt -e '.[training]'
	touch $@

# Written anew only when it says something else: another ComfyUI, or a newer version of the same.
$(VENV)/comfyui-requirements.txt: FORCE | $(BIN)/python
	grep -v '^torchaudio' '$(COMFYUI)/requirements.txt' > $@.new
	if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(TEST_STAMP): pyproject.toml tests/constraints.txt $(COMFYUI_NEEDS) | $(BIN)/python
	$(PIP) install $(TEST_NEEDS)
	if [ -n '$(COMFYUI)' ]; then $(BIN)/python -m tests.host.environments; fi
	touch $@

$(VENV)/.lint: | $(BIN)/python
	$(PIP) install ruff==0.17.6
	touch $@
