"""The silicon example through `verdi run`: the same run as `mlip-auto run examples/silicon.yaml`.

Use it as a starting point for your own scripts::

    mlip-auto setup
    verdi -p autopipe run examples/silicon.py
"""

import sys
from pathlib import Path

from aiida.engine import run_get_node

from aiida_autopipe.cli.results import print_results, write_results
from aiida_autopipe.config.expand import load_config
from aiida_autopipe.workflows.launch import prepare

HERE = Path(__file__).resolve().parent


def main(input_file: Path = HERE / "silicon.yaml", runs: Path = Path("runs")) -> int:
    """Run the loop in this process, without the daemon, and write its report."""
    config, material = load_config(input_file)
    _, node = run_get_node(prepare(config, material).builder)
    print_results(node, write_results(node, runs / config.name))
    return 0 if node.is_finished_ok else 1


if __name__ == "__main__":
    sys.exit(main())
