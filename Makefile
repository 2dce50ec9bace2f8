# `make demo` and `make test` set everything up themselves.
# On Linux without a GPU, PyTorch's own CPU index saves gigabytes: make TORCH_INDEX=https://download.pytorch.org/whl/cpu …
PYTHON ?= python3
VENV   ?= .venv
TORCH_INDEX ?=
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: install demo test slow lint clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt CMakeLists.txt $(wildcard src/vocalface/render/*.cpp)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/pip install -q --index-url $(TORCH_INDEX) -c constraints.txt torch)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

demo: install
	$(BIN)/vocalface demo -o demo

test: install
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build demo
