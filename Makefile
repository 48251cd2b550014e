# make demo | test | lint | clean. Needs Python 3.11 or newer with pip; everything else is installed into .venv.
# PYTHON=python3.12 chooses the interpreter, COMFYUI_PATH=... the ComfyUI that the host tests start.

PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check --no-input
COMFYUI := $(shell $(PYTHON) tests/host/comfyui.py)
ifeq ($(.SHELLSTATUS),1)
$(error no ComfyUI where COMFYUI_PATH points: correct it or unset it)
endif

# With a ComfyUI its own requirements rule (torch and torchvision must be built for each other); a stamp for each case.
# torchaudio is left out of them: nothing here needs it, and one built for another CUDA than torch breaks transformers.
ifeq ($(COMFYUI),)
DEMO_STAMP := $(VENV)/.demo
TEST_STAMP := $(VENV)/.test
TEST_NEEDS := -c tests/constraints.txt -e '.[test]'
else
DEMO_STAMP := $(VENV)/.test-with-comfyui
TEST_STAMP := $(DEMO_STAMP)
TEST_NEEDS := -e '.[test]' -r $(VENV)/comfyui-requirements.txt torchvision playwright
endif

.PHONY: demo test lint clean

# Learns a relation on the bundled miniworld, then draws with it: out/demo/sheet.png, report.md and the LoRA.
demo: $(DEMO_STAMP)
	$(BIN)/python -m training.miniworld --out out/demo demo
ifneq ($(COMFYUI),)
	$(BIN)/python -m tests.host.run_examples --out out/demo/comfyui
endif

test: $(TEST_STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) out *.egg-info .pytest_cache .ruff_cache .hypothesis node.zip
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml tests/constraints.txt | $(BIN)/python
	$(PIP) install -c tests/constraints.txt -e '.[training]'
	touch $@

$(TEST_STAMP): pyproject.toml tests/constraints.txt | $(BIN)/python
	if [ -n '$(COMFYUI)' ]; then grep -v '^torchaudio' '$(COMFYUI)/requirements.txt' > $(VENV)/comfyui-requirements.txt; fi
	$(PIP) install $(TEST_NEEDS)
	touch $@

$(VENV)/.lint: | $(BIN)/python
	$(PIP) install ruff
	touch $@
