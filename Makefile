# Two commands for a fresh machine: `make demo` and `make test`. Everything lands in .venv/ and demo_out/.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test check gate slow fuzz lint bench figures pareto site clean

demo: $(STAMP)
	$(BIN)/python -m experiments.demo --out demo_out

# Lint, types and all tests but those of more than a second or two.
test: $(STAMP) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not long and not slow and not gpu"

# What must pass before anything lands: those too. `.ci/run` adds the fidelity gate and the README's commands.
check: $(STAMP) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

# The fidelity gate: all 14 validation studies against results/validation_studies.csv, about 80 s of one core.
gate: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "slow or not slow" -k no_mean_error \
	  tests/experiments/test_validate.py

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# FUZZ_SECONDS of new spoilt files, spread over all readers.
fuzz: $(STAMP)
	HWSIM_FUZZ=$(or $(FUZZ_SECONDS),1800) $(BIN)/python -m pytest -s tests/fuzz

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Every figure and table of the documentation again, about five minutes; pictures of the report page need a Chromium.
figures: $(STAMP)
	$(BIN)/python -m experiments.figures
	$(BIN)/python -m experiments.bops
	$(BIN)/python -m hwsim explore machines docs/studies/mobilenet_v2_sizing.yaml --out demo_out/sizing
	cp demo_out/sizing/front.png docs/figures/mobilenet_v2_sizing.png
	$(BIN)/python -m experiments.document
	$(BIN)/python -m experiments.page_shots

# All ratios of speed in one run, about half an hour: make bench, or make bench BENCH="--quick --only training".
bench: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(BENCH)

# The documentation as a site in site/; any broken link fails. To see it: python3 -m http.server -d site
# Its tutorials' outputs: python -m experiments.tutorials
site: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

pareto: $(STAMP)
	$(BIN)/python -m experiments.pareto --profile smoke --threads 1 --out demo_out/pareto

# torch is pinned by constraints.txt to a build without CUDA packages where such a build is on offer.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,onnx,qonnx,report,explore]'
	touch $(STAMP)

clean:
	rm -rf .venv demo_out .pytest_cache .ruff_cache
