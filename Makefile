# Two commands: `make book` builds the pages, `make test` checks that all of it holds.
# Both make .venv and install into it when needed; nothing outside this folder changes.

PYTHON ?= python3
BIN := .venv/bin
# requirements-hashed.txt has the same pins with the hash of each file; CI installs from it.
REQUIREMENTS ?= requirements.txt
# TORCH=cpu installs the build of torch for processors alone: over 4 GB less, and no chapter needs a GPU.
TORCH ?=
ifneq ($(filter-out cpu,$(TORCH)),)
  $(error TORCH is '$(TORCH)'; it can be cpu, or left out)
endif
INDEX := $(if $(TORCH),--extra-index-url https://download.pytorch.org/whl/cpu)
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# .venv/installed holds the folder in which it was made. In another one, as after a move, the rule below mends it.
PLACE := $(shell cat .venv/installed 2>/dev/null)
MOVED := $(if $(PLACE),$(shell test "$$(cat .venv/installed)" = "$$PWD" || echo moved))
ifneq ($(MOVED),)
.PHONY: .venv/installed
endif

.PHONY: help book test check pdf serve workshop kit grade times seeds stacks results sweep bench lighthouse links lock address release clean

help:
	@echo "make book     run every notebook and build the pages into _build/html"
	@echo "make test     check everything; make test FRESH=1 repeats what has passed before"
	@echo "make check    the fast part of it: style, types and the quick unit tests (two minutes)"
	@echo "make serve    show the pages at http://localhost:8000"
	@echo "make pdf      print the pages into one PDF in _build (needs Chromium)"
	@echo "make workshop students' and instructors' copies, and slides, into _build/workshop"
	@echo "make kit      all that a room with no network needs, as one .zip in _build/kit"
	@echo "make grade FOLDER=...  try the notebooks that learners handed in; one line for each into grades.csv"
	@echo "make times    time every notebook (minutes, with the cores to itself) into book/results"
	@echo "make seeds    run every notebook with five other seeds (half an hour) into book/results"
	@echo "make stacks   run every notebook on Colab's versions, the lowest allowed and the newest (an hour, 6 GB) into book/results"
	@echo "make results  record the runs that are too long for a page (hours) into book/results"
	@echo "make sweep ARGS=...  run one notebook with many sets of parameters, side by side: see book/_scripts/measure/sweep.py"
	@echo "make bench    measure the speed beside other libraries (minutes, two cores to itself) into book/results"
	@echo "make lighthouse [ARGS=book/intro]  ask Lighthouse about the built pages on a phone, into book/results (needs Node.js and npm)"
	@echo "make links    ask every page that the book links to whether it is still there (needs the network)"
	@echo "make lock     write requirements-hashed.txt anew after a change of requirements.txt (needs the network)"
	@echo "make address URL=https://github.com/you/your-fork [BRANCH=main]   point every link at another repository"
	@echo "make release VERSION=0.3.0   make the branch of a release, which names itself in badges and first cells"
	@echo "make clean    remove what was built (not .venv, not downloaded data)"

book: .venv/installed
	$(BIN)/python book/_scripts/site/build_book.py

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal $(if $(FRESH),--fresh) $(ARGS)

# Not the pages, nor whole notebooks; ARGS=… goes to pytest.
check: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -q --quick tests/tools/test_style.py tests/tools/test_layout.py tests/unit $(ARGS)

pdf: book
	$(BIN)/python book/_scripts/site/make_pdf.py

serve: book
	@echo "The pages are at http://localhost:8000 (stop with Ctrl-C)"
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

workshop: .venv/installed
	$(BIN)/python book/_scripts/teach/make_workshop.py $(ARGS)

kit: book
	$(BIN)/python book/_scripts/teach/make_kit.py $(ARGS)

grade: .venv/installed
	$(BIN)/python book/_scripts/teach/make_grade.py "$(FOLDER)" $(ARGS)

times: .venv/installed
	$(BIN)/python book/_scripts/measure/make_times.py $(ARGS)

seeds: .venv/installed
	$(BIN)/python book/_scripts/measure/make_seeds.py $(ARGS)

stacks: .venv/installed
	$(BIN)/python book/_scripts/measure/make_stacks.py $(ARGS)

results: .venv/installed
	$(BIN)/python book/_scripts/measure/make_results.py $(ARGS)

sweep: .venv/installed
	$(BIN)/python book/_scripts/measure/sweep.py $(ARGS)

bench: .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-bench.txt
	$(BIN)/python book/_scripts/measure/bench.py $(ARGS)

lighthouse: book
	$(BIN)/python book/_scripts/measure/make_lighthouse.py $(ARGS)

# What cells print links to other chapters only, so nothing is run.
links: .venv/installed
	mkdir -p _build/links
	sed 's/^  execute_notebooks: .*/  execute_notebooks: "off"/' _config.yml > _build/links/config.yml
	$(BIN)/jupyter-book build . --config _build/links/config.yml --path-output _build/links --builder linkcheck

# For every system and every Python that the book allows; pins that are there already stay as they are.
lock: .venv/installed
	$(BIN)/uv pip compile requirements.txt --universal --python-version 3.11.5 --generate-hashes --quiet \
	  --no-annotate --no-emit-index-url --custom-compile-command "make lock" -o requirements-hashed.txt

address: .venv/installed
	$(BIN)/python book/_scripts/repo/address.py $(URL) $(BRANCH)

release: .venv/installed
	$(BIN)/python book/_scripts/repo/release.py $(VERSION)

clean:
	rm -rf _build

# Written last, so that an installation cut short is taken up again.
.venv/installed: $(REQUIREMENTS) pyproject.toml
	@found=$$($(PYTHON) -c "import sys; print('.'.join(map(str, sys.version_info[:3])))" 2>/dev/null); \
	case "$$found" in \
	  3.11.[5-9] | 3.11.[1-9][0-9] | 3.12.* | 3.13.* | 3.14.*) ;; \
	  *) echo "This book needs Python 3.11.5 to 3.14, but '$(PYTHON)' is $${found:-no Python that runs here}." \
	       "Name another: make book PYTHON=python3.12" >&2; exit 1 ;; \
	esac
	$(if $(MOVED),$(BIN)/python book/_scripts/repo/moved.py "$$(cat .venv/installed)",$(PYTHON) -m venv .venv)
	$(BIN)/python -m pip install --quiet $(INDEX) -r $(REQUIREMENTS)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@pwd > $@
