# Every target sets up what it needs, can be called alone, and does nothing twice.
#   make install      own .venv with the pinned versions, editable, dev extra
#   make quickstart   trains a fuser on the embedded pair and evaluates it (runs/quickstart)
#   make demo         serves the embedded pair and a page over HTTP (DEMO= adds options, such as --port 8080)
#   make test         fast tests        make lint   ruff, mypy, import contracts
#   make real         two small real models: fetch, make private facts, train, evaluate (runs/private_text)
#   make docs         documentation as plain files in docs/_build/html
#   make first-hour   the commands of a newcomer, from a built wheel in an empty folder
#   make gpu          checks and measures everything on a GPU (runs/gpu_day)
# PYTHON= chooses the interpreter, VENV= the environment's folder.

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := runs/quickstart
GPU_DAY := --device cuda --out runs/gpu_day

# The first that is there and new enough.
FIND_PYTHON = for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done
PYTHON ?= $(shell $(FIND_PYTHON))

# Tiny models: more threads than this only spin. Nothing is looked up on the hub.
TEST_ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# Real models use all cores.
REAL_ENV := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

.PHONY: install quickstart real demo first-hour docs gpu test test-newest models-newest test-slow lint format types contracts notebooks clean
.DELETE_ON_ERROR:

install: $(STAMP)

# The stamp is written last, so that an install that was cut off is done again.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found. Install one, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11. Name a newer one: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

quickstart: install
	$(TEST_ENV) $(BIN)/lightning fit --config configs/fit/quickstart.yaml
	$(TEST_ENV) $(BIN)/lightning test --config configs/eval/quickstart.yaml
	@test -f $(RUN)/fuser/fuser_config.json && test -f $(RUN)/report.json
	@echo "Fuser: $(RUN)/fuser   Evaluation: $(RUN)/report.json   Talk to it: $(BIN)/lightning chat --fuser $(RUN)/fuser"

# SmolLM2-135M-Instruct answers questions on documents that only Gemma 3 270M reads. Each step goes on where it was
# stopped: models and rows that are there are kept, training resumes, and so does the evaluation. FIT= and EVAL= add options.
MODELS := data/models
FACTS := data/private_facts
REAL := runs/private_text
RECEIVER := $(MODELS)/smollm2-135m-instruct
SHARER := $(MODELS)/gemma3-270m
PAIR := --model.receiver.path $(RECEIVER) \
	--model.sharers '[{path: $(SHARER), dtype: bfloat16, prompt_template: question_answer}]'

real: install
	$(BIN)/python -m tools.real_models --out $(MODELS) --only smollm2 --only gemma3
	test -f $(FACTS)/heldout_phrases.jsonl || $(BIN)/python -m tools.private_facts --out $(FACTS) --words_of $(RECEIVER) $(SHARER)
	test -f $(REAL)/fuser/fuser_config.json || $(REAL_ENV) $(BIN)/lightning fit --config configs/fit/private_text.yaml $(PAIR) \
		$$(test -f $(REAL)/checkpoints/last.ckpt && echo --ckpt_path last) $(FIT)
	$(REAL_ENV) $(BIN)/lightning test --config configs/eval/private_text.yaml $(PAIR) $(EVAL)
	@echo "Fuser: $(REAL)/fuser   Evaluation: $(REAL)/report.json"

# Every page is built again: Sphinx repeats no warnings of pages that did not change.
docs: install
	$(TEST_ENV) $(BIN)/python -m sphinx -q -E -W --keep-going -n -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python -m tools.site_check docs/_build/html

# The fuser of the quickstart, trained if it is not there; its evaluation is not needed.
$(RUN)/fuser/fuser_config.json: | install
	$(TEST_ENV) $(BIN)/lightning fit --config configs/fit/quickstart.yaml

demo: install $(RUN)/fuser/fuser_config.json
	$(TEST_ENV) $(BIN)/lightning serve --fuser $(RUN)/fuser \
		--message_prompt 'In one sentence: {question}' --message_max_new_tokens 32 $(DEMO)

# A built wheel in a fresh environment and an empty folder, with short trainings; ARGS= for the whole hour.
first-hour: install
	$(TEST_ENV) $(BIN)/python -m tools.first_hour $(or $(ARGS),--quickstart --max_steps 5)

# ARGS= adds options, such as `--parts correctness` or `--models DIR`; GPU_DAY= replaces device and folder.
gpu: install
	$(BIN)/python -m benchmarks.gpu_day $(GPU_DAY) $(ARGS)

test: install
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 $(ARGS)

# The newest transformers in front of the pinned one; everything else stays.
NEWEST := .newest
NEWEST_TESTS := tests/model/test_generation.py tests/model/test_fusion_modes.py tests/training/test_activation_checkpointing.py \
	tests/benchmarks/test_family_matrix.py tests/kv/test_latent.py tests/model/test_shared_caches.py

$(NEWEST)/.installed: pyproject.toml | install
	rm -rf $(NEWEST)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --target $(NEWEST) 'transformers>=5.24,<5.25'
	touch $@

test-newest: install $(NEWEST)/.installed
	PYTHONPATH=$(NEWEST):$$PYTHONPATH $(TEST_ENV) $(BIN)/python -m pytest -n 2 $(NEWEST_TESTS) $(ARGS)

# The family matrix of docs/models.md with the newest transformers.
models-newest: install $(NEWEST)/.installed
	PYTHONPATH=$(NEWEST):$$PYTHONPATH $(TEST_ENV) $(BIN)/python -m benchmarks.family_matrix $(ARGS)

test-slow: install
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 -m slow $(ARGS)

lint: install types contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

notebooks: install
	@for f in notebooks/*.ipynb; do test -e "$$f" || continue; \
		$(BIN)/nbstripout --verify "$$f" && $(TEST_ENV) $(BIN)/jupyter execute "$$f" || exit 1; done

clean:
	rm -rf $(VENV) $(NEWEST) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
