"""The silicon example through `verdi run`: the same run as `mlip-auto run examples/silicon.yaml`.

Use it as a starting point for your own scripts::

    mlip-auto setup
    verdi -p autopipe run examples/silicon.py

Another input file may be named behind it.
"""

import sys
from pathlib import Path

from aiida.engine import run_get_node

from aiida_autopipe.cli.results import print_results, write_results
from aiida_autopipe.config.expand import load_config
from aiida_autopipe.workflows.launch import prepare


def main(input_file: Path, runs: Path = Path("runs")) -> int:
    """Run the loop in this process, without the daemon, and write its report."""
    config, material = load_config(input_file)
    _, node = run_get_node(prepare(config, material).builder)
    print_results(node, write_results(node, runs / config.name))
    return 0 if node.is_finished_ok else 1


if __name__ == "__main__":
    # `verdi run` gives no full path in __file__, but the path as it was typed here.
    script, *arguments = sys.argv
    sys.exit(main(Path(arguments[0]) if arguments else Path(script).with_name("silicon.yaml")))
