# All commands use the virtual environment .venv; PYTHON selects the interpreter (3.11, 3.12, or 3.13).
PYTHON ?= python3
BIN := .venv/bin
OUT := quickstart
# setuptools warns about every editable installation.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet
# Makes Linux allocate memory in huge pages, which speeds up training on a CPU (see docs/training.md).
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1

.PHONY: quickstart test lint docs clean

quickstart: .venv/installed
	$(BIN)/a2f data prepare sample
	$(HUGE_PAGES) $(BIN)/a2f train --config configs/sample.py --workdir $(OUT)/two-minutes
	$(BIN)/a2f evaluate --bicubic 4 --datasets sample
	$(BIN)/a2f evaluate --weights $(OUT)/two-minutes --datasets sample --output $(OUT)
	$(eval PHOTO := $(shell $(BIN)/python -c "import pathlib, skimage; print(pathlib.Path(skimage.__file__).parent / 'data/motorcycle_left.png')"))
	$(BIN)/a2f upscale $(PHOTO) -o $(OUT)/motorcycle-x4.png --weights $(OUT)/two-minutes --overwrite
	$(BIN)/a2f compare $(PHOTO) --weights $(OUT)/two-minutes a2f-sd-x4 --crop 560,300,140,140 -o $(OUT)/comparison.png
	@echo "Done. Open $(OUT)/comparison.png (bicubic, two minutes of training, shipped weights, ground truth) and $(OUT)/motorcycle-x4.png"

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "a2f_jax needs Python 3.11, 3.12, or 3.13, but this is %d.%d. Select another: make PYTHON=python3.12" % sys.version_info[:2])'
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
	rm -rf .venv $(OUT) build site *.egg-info
