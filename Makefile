# Python for the virtual environment: make PYTHON=python3.11 venv
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.made
SETUP_FILES := constraints.txt setup.py $(wildcard tools/setup/*.py tools/setup/*.sh)

# Threads that wait asleep instead of spinning share a machine much better, and small models gain
# nothing from many threads. Set either to have it otherwise.
export GOMP_SPINCOUNT ?= 0
export OMP_NUM_THREADS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-train train-nano demo-vit demo-llm demo-deploy test test-properties test-slow test-faults test-browser test-gpu test-torch audit lint types \
	format docs site tutorials bench bench-full bench-tickets coverage clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

venv: $(STAMP) ## virtual environment with everything pinned (first time: a download of 3 GB, mmcv is compiled)

$(STAMP): $(SETUP_FILES)
	@$(PYTHON) tools/setup/make_venv.py $(VENV)
	@touch $@

demo: venv ## remove 30 % of a small VAD that is trained already, retrain, evaluate, compare, draw
	$(PY) tools/demo.py

demo-train: venv ## the same with a VAD trained from nothing, for some minutes on a drive of four scenes
	$(PY) tools/demo.py --train

train-nano: venv ## train the small VAD for longer, on twelve more drives, for a checkpoint to prune; hours
	$(PY) tools/train_nano.py

demo-vit: venv ## train a small ViT on real scans of digits, prune half of it, fine-tune, evaluate
	$(PY) tools/demo_vit.py

demo-llm: venv ## prune SmolLM2-135M by units and by weights, train it briefly, compare perplexity and text
	$(PY) tools/demo_llm.py

# What runs the files beside onnxruntime; the demo leaves out what can't be installed.
DEPLOY_PACKAGES := openvino==2026.4.1 xllamacpp==2026.10.11549

demo-deploy: venv ## slim models in onnxruntime, in 8 bits, in OpenVINO and in llama.cpp, in one table
	-@$(PY) -c 'import openvino, xllamacpp' 2>/dev/null || \
	$(PY) -m pip install --quiet --constraint constraints.txt $(DEPLOY_PACKAGES)
	$(PY) tools/demo_deploy.py

# A process per core runs test files of its own, each with one thread: TEST_WORKERS says how many.
TEST_WORKERS ?= 2

test: venv ## the test suite, without the slow tests and most of the faults
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m 'not slow and not faults' -n $(TEST_WORKERS) --dist loadfile --durations=15 --durations-min=1

test-properties: venv ## random models, prune_cfgs and checkpoint files, many and new ones each time
	OMP_NUM_THREADS=1 $(PY) -m pytest -q tests/prune_plugin/properties --hypothesis-profile=many -n $(TEST_WORKERS) --dist loadfile

test-slow: venv ## the slow tests alone
	$(PY) -m pytest -q -m slow --durations=15

test-faults: venv ## kill, fill disks, damage files at every moment (docs/faults.md); half an hour or more
	OMP_NUM_THREADS=1 $(PY) -m pytest -q tests/faults -n $(TEST_WORKERS) --dist loadfile --durations=15

test-browser: venv ## the pages in Chromium (apt install chromium): explorer, report, site, accessibility
	@$(PY) -c 'import axe_core_python' 2>/dev/null || $(PY) -m pip install --quiet --no-deps 'axe-core-python==0.1.0'
	$(PY) -m pytest -q -rs tests/prune_plugin/workflows/test_explorer.py tests/prune_plugin/workflows/test_report_browser.py tests/docs/test_site.py

# On a bare machine: pip install torch mmengine rich greenlet pytest hypothesis, then this command.
test-gpu: venv ## the tests that need a GPU; without one they are skipped
	$(PY) -m pytest -q -m gpu -rs --durations=15 tests/gpu/test_real_gpu*.py
	@$(PY) -c 'import torch; torch.cuda.is_available() or print("No GPU: nothing was tested.")'

test-torch: ## the test suite with another torch, in a virtual environment of its own: TORCH=2.13.0
	@test -n "$(TORCH)" || { echo 'test-torch: which version? make test-torch TORCH=2.13.0' >&2; exit 2; }
	@$(PYTHON) tools/setup/make_venv.py $(VENV)-torch-$(TORCH) $(TORCH)
	OMP_NUM_THREADS=1 $(VENV)-torch-$(TORCH)/bin/python -m pytest -q -m 'not slow and not faults' -n $(TEST_WORKERS) --dist loadfile

# In an environment of its own: an audit's tools are not what is audited. `--strict`: a package that the
# database doesn't know counts as a failure, not as clean.
audit: ## known vulnerabilities of what constraints.txt pins (asks an advisory database)
	@test -x $(VENV)-audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)-audit && \
	$(VENV)-audit/bin/python -m pip install --quiet --constraint constraints.txt pip-audit; }
	$(VENV)-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off

types: venv ## mypy on all modules of projects/prune_plugin
	$(PY) -m mypy

lint: venv types ## ruff (rules and format), codespell, mypy, and which room of the engine imports which
	$(VENV)/bin/lint-imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/codespell

format: venv ## mend what ruff can mend
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: venv ## write docs/reference.md and docs/report.md from the docstrings, docs/licenses.md, and the README's results
	$(PY) tools/docs/reference.py
	$(PY) tools/docs/report_schema.py
	$(PY) tools/docs/licenses.py
	$(PY) tools/docs/results.py

site: ## the docs as a site of files, site/index.html, in an environment of its own
	@test -x $(VENV)-site/bin/mkdocs || { $(PYTHON) -m venv $(VENV)-site && \
	$(VENV)-site/bin/python -m pip install --quiet --requirement tools/docs/site_requirements.txt; }
	@NO_MKDOCS_2_WARNING=1 $(VENV)-site/bin/mkdocs build --quiet --config-file tools/docs/mkdocs.yml
	@echo site/index.html

tutorials: venv ## run the notebooks of docs/tutorials and keep what they show
	$(PY) tools/docs/tutorials.py

bench: venv ## measurements of less than an hour, with their tables
	$(PY) tools/benchmarks/run_all.py

bench-full: venv ## all measurements; hours
	$(PY) tools/benchmarks/run_all.py --full

coverage: venv ## which models of timm, torchvision, transformers and OpenMMLab can be pruned: docs/models.md; hours
	$(PY) tools/benchmarks/coverage_sweep.py transformers
	$(PY) tools/benchmarks/coverage_sweep.py torchvision
	$(PY) tools/benchmarks/coverage_sweep.py timm
	$(PY) tools/benchmarks/coverage_sweep.py encoders
	$(PY) tools/benchmarks/coverage_sweep.py mmdet
	$(PY) tools/benchmarks/coverage_sweep.py mmdet3d
	$(PY) tools/benchmarks/coverage_page.py

bench-tickets: venv ## IMP, Refill and RSST against dense and one shot on CIFAR-10 (data/cifar10, or CIFAR10_ROOT)
	$(PY) tools/benchmarks/tickets.py
	$(PY) tools/benchmarks/run_all.py --only-docs

clean: ## remove caches and build leftovers
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis mm_prune.egg-info
	find . -name __pycache__ -not -path './$(VENV)*/*' -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environments too
	rm -rf $(VENV) $(VENV)-audit $(VENV)-torch-*
