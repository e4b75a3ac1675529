# The commands of the study; `make help` lists them.
PROFILE ?= quick
DATA ?= phantom
CORES ?= 2
PORT ?= 8866
CLUSTER ?=
SHARE ?= 1
SEED ?= 1
PYTHON ?= python3
BIN := .venv/bin
SNAKEMAKE = PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --snakefile workflow/Snakefile --rerun-incomplete \
  --configfile "config/$(PROFILE).yaml" --config profile="$(PROFILE)" data="$(DATA)"

.NOTPARALLEL:  # the book and the tests would wait for each other's locks
.PHONY: help book course dry-run rulegraph unlock app external test site-check pdf archive fuzz lint bench chaos threads memory cluster-test lock clean

help:  ## list these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

ifneq ($(shell cat .venv/done 2>/dev/null),$(CURDIR))
.PHONY: .venv/done  # programs in it name the folder where it was made
endif
.venv/done: workflow/requirements.lock pyproject.toml
	@found=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1); \
	case "$$found" in 3.11|3.12) ;; *) \
	  echo "$(PYTHON): got $$found, but Python 3.11 or 3.12 is needed. Name it: make PYTHON=python3.12" >&2; exit 1;; esac
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r workflow/requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	echo "$(CURDIR)" > $@

book: .venv/done  ## run the notebooks and build the pages (PROFILE=quick DATA=phantom CORES=2 CLUSTER=slurm)
	$(SNAKEMAKE) $(if $(CLUSTER),--profile "workflow/profiles/$(CLUSTER)",--cores $(CORES)) --quiet rules
	@echo "The book is ready: open _build/html/index.html"

dry-run: .venv/done  ## list the jobs that make book would run
	$(SNAKEMAKE) --cores $(CORES) --dry-run --quiet rules

rulegraph: .venv/done  ## draw the rules of a profile with Snakemake (needs Graphviz)
	$(SNAKEMAKE) --cores 1 --rulegraph 2>/dev/null | dot -Tsvg > book/_static/rulegraph.svg

unlock: .venv/done  ## remove Snakemake's lock after a power cut or kill -9
	$(SNAKEMAKE) --cores 1 --unlock

course: .venv/done  ## build notebooks for students and instructors, slides and a quiz file in _build/course
	$(BIN)/python workflow/build_course.py

external: .venv/done  ## score the published networks on the images of DATA/slices.csv, without training
	$(BIN)/braintumor evaluate "$(DATA)"

app: .venv/done  ## serve the app on this computer (DATA=phantom PORT=8866)
	$(BIN)/braintumor app --data "$(DATA)" --port $(PORT)

test: .venv/done  ## run the tests (CORES=2)
	$(BIN)/pytest -n $(CORES) --dist loadfile --no-loadscope-reorder

site-check: .venv/done  ## check every page of the built book in Chromium: links, contrast, alt text ...
	$(BIN)/python tools/site_check.py

pdf: .venv/done  ## print the built book to _build/brain-tumors.pdf (needs Chromium)
	$(BIN)/python tools/print_book.py

archive: .venv/done  ## pack the built book as _build/brain-tumors.zip
	$(BIN)/python -m zipfile -c _build/brain-tumors.zip _build/html

fuzz: .venv/done  ## read 28,000 damaged files (SHARE=1 SEED=1)
	$(BIN)/python tools/fuzz.py --share $(SHARE) --seed $(SEED)

lint: .venv/done  ## check format, style, notebooks and the layers of the library
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*/*.ipynb app/app.ipynb
	$(BIN)/lint-imports

bench: .venv/done  ## measure speed against the usual alternatives (DATA=phantom)
	$(BIN)/python tools/bench.py "$(DATA)"

chaos: .venv/done  ## stop a tiny run at random moments, go on, and compare byte for byte
	$(BIN)/python tools/chaos.py

cluster-test: .venv/done  ## run a sweep on a SLURM that loses one of two nodes (Debian, as root)
	$(BIN)/python tools/cluster.py

threads: .venv/done  ## measure how far a training depends on the number of threads
	$(BIN)/python tools/threads.py

memory: .venv/done  ## measure the memory of preparing DATA and of training
	$(BIN)/python tools/memory.py "$(DATA)"

lock: .venv/done  ## resolve workflow/requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
  --extra app --extra cluster --extra test \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet -o workflow/requirements.lock

clean:  ## remove built pages, executed notebooks and prepared data; keep results and .venv
	rm -rf _build data/prepared data/phantom .snakemake
