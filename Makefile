# make train   a robust classifier of handwritten digits in a few minutes
# make test    all tests but those of PyTorch, Ray and wandb, which need more packages
# make check   format check, lint, types, tests
# make bench   time it against PyTorch; DATA_DIR=... where CIFAR-10 lies
# make bench-tpu  what a training step costs on TPUs, by their compiler, without one: minutes for each of 48 programs
# make bench-scaling  the same on 1 to 256 chips
# make results    RESULTS.md and the pages in results/ anew, from what results/ keeps
# make notebook   docs/tutorial.ipynb anew, with its outputs
# make docs    all pages and the reference as a site, in site/index.html
# make wheel   build the package and install it in an environment of its own

PYTHON ?= python3
VENV ?= .venv
TPU_VENV ?= .venv-tpu
BENCH ?=
TESTS ?=
PYTEST := $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile
BIN := $(VENV)/bin

.PHONY: train results notebook test check format bench docs wheel clean bench-tpu bench-scaling

train: $(VENV)/installed
	$(BIN)/python launch.py --config configs/digits.py --workdir runs/digits

results: $(VENV)/installed
	$(BIN)/python launch.py --mode report --workdir results/mini_c10 --markdown RESULTS.md
	$(BIN)/python launch.py --mode report --workdir results/controls --markdown results/controls/README.md
	$(BIN)/python launch.py --mode report --workdir results/own --markdown results/own/README.md

notebook: $(VENV)/installed-test
	$(BIN)/python tests/helpers/notebook.py

test: $(VENV)/installed-test
	$(PYTEST) $(TESTS)

check: $(VENV)/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) $(TESTS)

format: $(VENV)/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.evaluate
	$(BIN)/python -m benchmarks.attack_step
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.memory $(if $(DATA_DIR),--data-dir $(DATA_DIR))

bench-tpu: $(TPU_VENV)/installed
	$(TPU_VENV)/bin/python -m benchmarks.tpu_compile $(BENCH)

bench-scaling: $(TPU_VENV)/installed
	$(TPU_VENV)/bin/python -m benchmarks.tpu_compile --configs resnet18_c10 --chips v5e --devices 1 4 16 64 256 \
		--batch 1024 --batch-per-chip 128 --plot docs/pictures/scaling $(BENCH)

$(TPU_VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(TPU_VENV)
	$(TPU_VENV)/bin/pip install --quiet --editable ".[train,tpu]"
	touch $@

docs: $(VENV)/installed-docs
	rm -rf docs/reference build/site site
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --conf-dir docs/site --doctree-dir build/doctrees . build/site
	mv build/site site
	cp site/README.html site/index.html

# From a directory with nothing else in it: attacks with the core alone; with the extra a run, its weights and a report.
wheel: $(VENV)/installed-test
	rm -rf dist build
	$(BIN)/python -m build --outdir dist . >dist.log || { cat dist.log; exit 1; }
	rm dist.log
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv dist/venv
	dist/venv/bin/pip install --quiet dist/*.whl
	mkdir dist/elsewhere
	cd dist/elsewhere && ../venv/bin/python $(CURDIR)/tests/helpers/core.py
	cd dist/elsewhere && ! ../venv/bin/jaxrw --help
	dist/venv/bin/pip install --quiet "$$(ls $(CURDIR)/dist/*.whl)[train]"
	cd dist/elsewhere && ../venv/bin/jaxrw --config digits $(FEW_EPOCHS)
	cd dist/elsewhere && ../venv/bin/jaxrw --mode export --workdir runs/digits-ours_mail-0
	cd dist/elsewhere && ../venv/bin/jaxrw --mode evaluate --config digits --workdir runs/file \
		--checkpoint runs/digits-ours_mail-0/last.safetensors --config.evaluation.attacks="('clean','pgd20')"
	cd dist/elsewhere && ../venv/bin/jaxrw --mode report

FEW_EPOCHS := --config.optim.num_epochs=3 --config.optim.milestones="()" --config.method.warmup_epochs=1 \
	--config.evaluation.attacks="('clean','pgd20')"

$(VENV)/installed: pyproject.toml
	@echo "Installing JAX, Flax and what else jaxrw needs in $(VENV): a minute or two, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --editable ".[train]"
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/pip install --quiet --editable ".[docs]"
	touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/pip install --quiet --editable ".[bench]"
	touch $@

clean:
	rm -rf $(VENV) $(TPU_VENV) .venv312 build dist *.egg-info
