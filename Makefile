# Every target builds .venv by itself if it is not there.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
RIVALS := .venv-rivals
WORKDIR ?= runs/demo
# Large pages, kept between the steps: on CPU a seventh of a small step (docs/performance.md).
demo bench: export GLIBC_TUNABLES = glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=8589934592

.PHONY: demo test test-all lint docs bench bench-accelerator clean

$(VENV)/installed: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sibert_jax needs Python >= 3.11, found " + sys.version.split()[0] + "; call make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(RUN) -m sibert_jax.main --config=demo --workdir=$(WORKDIR)
	$(RUN) -m sibert_jax.report $(WORKDIR) --out=$(WORKDIR)/report
	@echo "picture: $(WORKDIR)/report/report.png"
	@echo "resume:  $(RUN) -m sibert_jax.main --config=demo --workdir=$(WORKDIR)   (kill it at any time; the same command continues it)"

test: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m pytest -n 2 --dist worksteal --durations=20

# With the compiler's optimisations, which the tests otherwise do without.
test-all: $(VENV)/installed
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(RUN) -m pytest -n 2 --dist worksteal --durations=20 -m 'slow or not slow'

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

$(VENV)/docs: $(VENV)/installed
	$(RUN) -m pip install --quiet --editable '.[docs]'
	touch $@

# Without the notice on the successor of Material for MkDocs.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build
	@echo "site/index.html"

# PyTorch and Hugging Face, which only the benchmarks measure, in an environment of their own.
$(RIVALS)/installed: benchmarks/requirements.txt
	$(PYTHON) -m venv $(RIVALS)
	$(RIVALS)/bin/python -m pip install --quiet --requirement $<
	touch $@

bench: $(VENV)/installed
	@$(MAKE) --no-print-directory $(RIVALS)/installed || echo "$(RIVALS) could not be made, so PyTorch is not measured; the reason is above."
	$(RUN) -m benchmarks

# .venv needs the JAX of the accelerator: docs/performance.md.
bench-accelerator: $(VENV)/installed
	$(RUN) -m benchmarks.accelerator

clean:
	rm -rf $(VENV) $(RIVALS) runs site
