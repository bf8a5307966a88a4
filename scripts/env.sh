# Source this from the checkout, '. scripts/env.sh', to work in the environment of `make demo`:
# its Python, and its own AiiDA folder beside your own.
AIIDA_PATH="$PWD/.aiida-autopipe"
PATH="$PWD/.venv/bin:$PATH"
OMP_NUM_THREADS=1
export AIIDA_PATH PATH OMP_NUM_THREADS
