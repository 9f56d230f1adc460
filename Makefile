# Needs only make and python3, 3.11 or newer. Everything is made inside this checkout, nothing in your home.
# Packages come through pip, so PIP_* variables and pip.conf (mirrors, proxies, certificates) hold here too.

DEMO := -m example_dags.run_demo

# The first interpreter in the range; Airflow below 3.1 does not run on Python 3.13.
find_python = $(shell for name in python3 python3.13 python3.12 python3.11; do $$name -c \
	'import sys; sys.exit(not (3, 11) <= sys.version_info < $(1))' 2>/dev/null && echo $$name && break; done)
PYTHON ?= $(call find_python,(3, 15))
OLD_PYTHON ?= $(call find_python,(3, 13))

# Your own Airflow settings and connections stay out of here, and this stays out of your Airflow.
unexport $(filter AIRFLOW_%,$(.VARIABLES))
export AIRFLOW_HOME = $(CURDIR)/.airflow/$(AIRFLOW)
AIRFLOW := 3.3

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help python venv demo lint types pytest test reliability bench test-old test-3.0 test-2.11 build pins clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

python:
	@test -n '$(PYTHON)' || { echo "This needs Python 3.11 or newer, and python3 here is:" \
		"$$(python3 --version 2>&1). Another one: make PYTHON=/path/to/python3" >&2; exit 1; }

venv: python ## Make .venv: Airflow 3.3.2, this package and the tools
	@$(PYTHON) scripts/bootstrap.py .venv requirements/airflow-3.3.txt

demo: venv ## Send events to four vendors' sandboxes on this machine
	@.venv/bin/python $(DEMO)

lint: venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: venv
	.venv/bin/mypy

pytest: python
	@$(PYTHON) scripts/bootstrap.py .venv requirements/airflow-3.3.txt --with-mysql
	.venv/bin/python -m pytest $(TESTS)

test: lint types pytest ## Run everything on Airflow 3.3: ruff, mypy --strict, the whole suite

test-old: test-3.0 test-2.11 ## Run the fast tests on Airflow 3.0 and 2.11

reliability: venv ## Kill, cut and starve deliveries in a real Airflow; rewrites the table in docs/reliability.md
	.venv/bin/python -m tests.reliability

bench: python ## Measure this package beside its peers; rewrites docs/performance.md. BENCH=--help: what can be chosen
	@$(PYTHON) scripts/bootstrap.py .venv-bench requirements/benchmarks.txt
	@.venv-bench/bin/python -m benchmarks $(BENCH)

# What depends on Airflow's version; vendors, delivery and the sandbox know no Airflow.
OLD_TESTS := $(addprefix tests/,cli entries example_dags hooks operators sensors transfers triggers sources/test_jsonl.py sources/test_rows.py sources/test_sql.py)

test-3.0 test-2.11: test-%:
	@python="$(OLD_PYTHON)"; \
	if test -z "$$python"; then \
		echo "Airflow $* is not tested: it needs Python 3.11 or 3.12, and there is none here."; \
	else \
		$$python scripts/bootstrap.py .venv-$* requirements/airflow-$*.txt --with-mysql && \
		.venv-$*/bin/python -m pytest -m "not slow" $(OLD_TESTS); \
	fi

test-3.0: AIRFLOW := 3.0
test-2.11: AIRFLOW := 2.11

build: venv ## Build sdist and wheel, check them, and try the wheel in a clean environment
	rm -rf dist .venv-wheel
	.venv/bin/python -m build --no-isolation
	.venv/bin/twine check --strict dist/*
	@# The wheel holds this package, with its types, and nothing else.
	.venv/bin/python -m zipfile -l dist/*.whl | grep '^airflow_provider_events/py.typed '
	! .venv/bin/python -m zipfile -l dist/*.whl | grep -v -e '^File Name' -e '^airflow_provider_events[/-]'
	.venv/bin/python -m venv --without-pip .venv-wheel
	@# The wheel's own dependencies must be enough: pip resolves them, at the versions that the tests ran with.
	.venv/bin/python -m pip --python .venv-wheel install -qq --only-binary :all: \
		--constraint requirements/airflow-3.3.txt dist/*.whl
	.venv/bin/python -m pip --python .venv-wheel check
	cd .venv-wheel && AIRFLOW_HOME="$(CURDIR)/.airflow/wheel" bin/airflow providers get airflow-provider-events

# The old sets are what could be installed on these days, plus newer versions of the packages named here.
PINS_UNTIL := 2026-11-20
AIRFLOW_3_0_UNTIL := 2025-10-01
AIRFLOW_2_11_UNTIL := 2026-04-01
NEWER := apache-airflow-providers-common-compat apache-airflow-providers-common-sql \
	apache-airflow-providers-postgres apache-airflow-providers-sqlite \
	hatchling hypothesis pytest pytest-asyncio pytest-mock

UV := .venv/bin/uv
COMPILE = $(UV) pip compile --quiet --no-annotate --custom-compile-command "make pins" $(UPGRADE) \
	--only-binary :all: --python-version 3.11
COMPILE_OLD = $(COMPILE) --extra test $(NEWER:%=--exclude-newer-package %=$(PINS_UNTIL))

# Keeps what is pinned unless it must change. For newer versions set PINS_UNTIL, then: make pins UPGRADE=--upgrade
# uv reads no pip.conf: with a mirror, set UV_DEFAULT_INDEX. The old sets come out the same for Python 3.11 and 3.12.
pins: venv ## Pin requirements/*.txt anew, after a change of pyproject.toml or requirements/*.in
	$(COMPILE) --universal --exclude-newer $(PINS_UNTIL) --extra dev \
		pyproject.toml requirements/airflow-3.3.in --output-file requirements/airflow-3.3.txt
	@# Segment's SDK asks for an old python-dateutil; it works with the one of the reference set.
	echo 'python-dateutil>=3' | $(COMPILE) --universal --exclude-newer $(PINS_UNTIL) --extra dev --overrides - \
		--constraints requirements/airflow-3.3.txt pyproject.toml requirements/airflow-3.3.in \
		requirements/benchmarks.in --output-file requirements/benchmarks.txt
	$(COMPILE_OLD) --exclude-newer $(AIRFLOW_3_0_UNTIL) \
		pyproject.toml requirements/airflow-3.0.in --output-file requirements/airflow-3.0.txt
	$(COMPILE_OLD) --exclude-newer $(AIRFLOW_2_11_UNTIL) --no-binary python-nvd3 \
		pyproject.toml requirements/airflow-2.11.in --output-file requirements/airflow-2.11.txt
	$(COMPILE) --universal --exclude-newer $(PINS_UNTIL) --no-binary mysqlclient --no-deps \
		requirements/mysql.in --output-file requirements/mysql.txt

clean: ## Remove all that was made here: environments, Airflow's home, caches, builds
	rm -rf .venv .venv-* .airflow benchmarks/build .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
