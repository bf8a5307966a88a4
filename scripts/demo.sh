#!/bin/sh
# The whole loop on an example, in an AiiDA folder of its own inside the checkout.
# Usage: scripts/demo.sh [INPUT]
set -eu

cd "$(dirname "$0")/.."
. scripts/env.sh
mlip-auto setup
exec mlip-auto run "${1:-examples/silicon.yaml}"
