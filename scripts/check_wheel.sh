#!/bin/sh
# Build the wheel, install it into an empty environment away from the checkout, and use it there.
set -eu

cd "$(dirname "$0")/.."
root=$PWD
PIP_CONSTRAINT="$root/constraints.txt"
PIP_BUILD_CONSTRAINT=$PIP_CONSTRAINT
export PIP_CONSTRAINT PIP_BUILD_CONSTRAINT PIP_DISABLE_PIP_VERSION_CHECK=1
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

.venv/bin/python -m pip wheel -q --no-deps -w "$place/dist" .
.venv/bin/python -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q "$place"/dist/*.whl
mkdir "$place/empty"
cd "$place/empty"
AIIDA_PATH="$place/aiida"
export AIIDA_PATH
"$place/venv/bin/mlip-auto" --help >/dev/null
"$place/venv/bin/python" - <<'PYTHON'
import importlib
import pkgutil

import aiida_autopipe
from aiida_autopipe.engines.espresso.pseudos import debian_table

assert "site-packages" in aiida_autopipe.__file__, aiida_autopipe.__file__
names = [
    module.name
    for module in pkgutil.walk_packages(aiida_autopipe.__path__, "aiida_autopipe.", lambda _: None)
    # The contract tests for plugins of others need pytest, which the extra `tests` brings.
    if not module.name.startswith("aiida_autopipe.testing")
]
for name in names:
    importlib.import_module(name)
assert debian_table()["PZ"]
print(f"wheel: {len(names)} modules import from {aiida_autopipe.__version__}")
PYTHON
