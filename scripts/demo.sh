#!/bin/sh
# The whole loop on examples, in an AiiDA folder of its own inside the checkout: from DFT to a
# validated potential, then a simulation that is halted, taught and resumed. Or on one INPUT.
# Usage: scripts/demo.sh [INPUT]
set -eu

cd "$(dirname "$0")/.."
. scripts/env.sh
mlip-auto setup
if [ $# -gt 0 ]; then
    exec mlip-auto run "$1"
fi
mlip-auto run examples/silicon.yaml
exec mlip-auto run examples/copper-quench.yaml
