# The words a developer needs; `make profile` and `make test` are the README's two commands.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SPEC ?= kimi_linear
ARGS ?=
WORKERS ?= auto

BROWSERS = chromium chromium-browser google-chrome google-chrome-stable

.PHONY: profile search browser test shapes test-gpu check format bench wheel clean

profile: $(VENV)/installed  ## run the main job: make profile SPEC=qwen3_next ARGS="hardware=h100"
	$(BIN)/hybridsim profile spec=$(SPEC) $(ARGS)

# Real proxy trainings at the shortest length; four-layer twins, so few are trained twice.
search: $(VENV)/installed  ## a complete tiny search on two CPU cores: make search ARGS="trials=12"
	$(BIN)/hybridsim search base=$(SPEC) quality=proxy 'fidelities=[quick]' device=cpu trials=6 \
	  batch_size=6 study=make_search $(ARGS)

test: $(VENV)/installed  ## run the tests: make test ARGS="tests/test_costs.py -k kimi"
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# The shape annotations of signatures, executed. (Under a tracer sizes are no integers: not there.)
shapes: $(VENV)/installed  ## run the models' tests with every annotated shape checked
	$(BIN)/python -m pytest -n $(WORKERS) -q \
	  --jaxtyping-packages=hybridsim.nn,hybridsim.mixers,hybridsim.ffn,hybridsim.model,beartype.beartype \
	  tests/test_recurrences.py tests/test_attention_ops.py tests/test_mixers.py tests/test_model.py

browser:  ## the browser that the tests of pages open
	which $(BROWSERS) | grep . || { apt-get update -qq && apt-get install -y -qq chromium; }

test-gpu: $(VENV)/installed  ## run the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu $(ARGS)

check: $(VENV)/installed  ## formatting, lint, strict types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed  ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed  ## speed of the closed forms, of the counters and of searching costs
	$(BIN)/python benchmarks/closed_forms.py
	$(BIN)/python benchmarks/search_speed.py

# Built and installed as a user gets it, then tried from an empty folder.
wheel: $(VENV)/installed
	rm -rf build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel .
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet -c constraints.txt build/wheel/*.whl pytest hypothesis
	cd build/wheel && venv/bin/python -m pytest -q -c /dev/null \
	  --rootdir=. -p no:cacheprovider ../../tests/cli

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist
