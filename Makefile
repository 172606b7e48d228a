# The supported versions, from the oldest to the newest.
PYTHONS := 3.11 3.12 3.13
# All commands but test-matrix use the virtual environment .venv; PYTHON selects the interpreter.
PYTHON ?= python3
# The interpreters of test-matrix: the oldest and the newest supported version.
PYTHON_OLDEST ?= python$(firstword $(PYTHONS))
PYTHON_NEWEST ?= python$(lastword $(PYTHONS))
BIN := .venv/bin
ifneq ($(wildcard $(BIN)/python),)
ifeq ($(filter clean,$(MAKECMDGOALS))$(filter file,$(origin PYTHON)),)
version_of = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ifneq ($(call version_of,$(PYTHON)),$(call version_of,$(BIN)/python))
$(error .venv uses Python $(call version_of,$(BIN)/python), not that of PYTHON=$(PYTHON): run make clean first)
endif
endif
endif
OUT := quickstart
# setuptools warns about every editable installation.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet

.PHONY: quickstart test test-matrix test-oldest test-newest lint docs clean

quickstart: .venv/installed
	$(BIN)/a2f data prepare sample
	$(BIN)/a2f train --config configs/sample.py --workdir $(OUT)/two-minutes
	$(BIN)/a2f evaluate --bicubic 4 --datasets sample
	$(BIN)/a2f evaluate --weights $(OUT)/two-minutes --datasets sample --output $(OUT) --overwrite
	$(eval PHOTO := $(shell $(BIN)/python -c "import pathlib, skimage; print(pathlib.Path(skimage.__file__).parent / 'data/motorcycle_left.png')"))
	$(BIN)/a2f upscale $(PHOTO) -o $(OUT)/motorcycle-x4.png --weights $(OUT)/two-minutes --overwrite
	$(BIN)/a2f compare $(PHOTO) --weights $(OUT)/two-minutes a2f-sd-x4 --crop 560,300,140,140 -o $(OUT)/comparison.png --overwrite
	@echo "Done. Open $(OUT)/comparison.png (bicubic, two minutes of training, shipped weights, ground truth) and $(OUT)/motorcycle-x4.png"

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# The fast part of the suite on the oldest Python with the lower bounds in setup.py, and on the newest Python with the newest releases.
FAST_TESTS := $(addprefix tests/,models upscaling weights hardware exporting test_model.py test_layers.py) \
	$(patsubst %,tests/training/test_%.py,step spmd optimizer settings step_costs checkpoints inputs)
UV = $(BIN)/uv pip

test-matrix: test-oldest test-newest

test-oldest: INTERPRETER := PYTHON_OLDEST
test-oldest: VERSION := $(firstword $(PYTHONS))
test-oldest: RESOLUTION := lowest-direct
test-newest: INTERPRETER := PYTHON_NEWEST
test-newest: VERSION := $(lastword $(PYTHONS))
test-newest: RESOLUTION := highest

test-oldest test-newest: test-%: .venv/tested
	@test "$$($($(INTERPRETER)) -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = $(VERSION) || \
		{ echo "$@ needs Python $(VERSION). Name it: make $(INTERPRETER)=/path/to/python$(VERSION) $@"; exit 2; }
	@test -x .venv-$*/bin/python || $($(INTERPRETER)) -m venv .venv-$*
	$(UV) install --quiet --python .venv-$*/bin/python --upgrade --resolution $(RESOLUTION) --editable '.[test,lpips,report]'
	@echo "The $* supported versions: $$(.venv-$*/bin/python --version)" && \
		$(UV) list --quiet --python .venv-$*/bin/python --format freeze | grep -E '^(jax|jaxlib|libtpu|flax|optax|orbax-checkpoint|numpy)=='
	.venv-$*/bin/python -m pytest --numprocesses 2 --dist worksteal $(FAST_TESTS)

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: setup.py
	@$(PYTHON) -c 'import sys; version = "%d.%d" % sys.version_info[:2]; sys.exit(0 if version in "$(PYTHONS)".split() else "a2f_jax supports Python $(PYTHONS), but this is " + version + ". Select another: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --upgrade pip
	$(PIP) --editable .
	touch $@

.venv/tested: .venv/installed
	$(PIP) --editable '.[test,lpips,report]'
	touch $@

# NO_MKDOCS_2_WARNING silences the theme's announcement about MkDocs 2; all other warnings are errors.
docs: .venv/documented
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Done. Open site/index.html"

.venv/documented: .venv/installed
	$(PIP) --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv .venv-oldest .venv-newest $(OUT) build site *.egg-info
