# make demo: train and evaluate on real photographs.   make test: run the tests.
PYTHON ?= python3
SEED ?= 0
PIP := .venv/bin/python -m pip --disable-pip-version-check

.PHONY: demo test test-data test-gpu test-long install quality style clean

demo: install
	.venv/bin/python tools/demo.py $(CONFIG) --seed $(SEED)

test: install
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --maxprocesses 4

# GHOSTDET_TEST_DATA names a folder with bccd/, mini_coco/, coco_eval/.
test-data: install
	.venv/bin/python -m pytest -m data

test-gpu: install
	.venv/bin/python -m pytest -m gpu tests/gpu
	.venv/bin/python -m pytest -k cuda tests/ops

test-long: install
	.venv/bin/python -m pytest -m long

quality: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports

style: install
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

install: .venv/installed

# A compiled MMCV in .venv is kept: mmcv-lite is installed only where there is no MMCV.
.venv/installed: pyproject.toml setup.py constraints.txt
	@.venv/bin/python -c "" 2>/dev/null || $(PYTHON) -m venv .venv
	@$(PIP) --version >/dev/null || .venv/bin/python -m ensurepip
	@echo "Installing ghostdet and what it needs into .venv"
	@extras=test; .venv/bin/python -c "import importlib.util as i, sys; sys.exit(not i.find_spec('mmcv'))" || extras=test,lite; \
	$(PIP) install --quiet --constraint constraints.txt --editable ".[$$extras]"
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
