"""`autopipe.pw` and charge that sloshes along a long cell, in pw.x itself."""

from pathlib import Path
from typing import Any

import pytest
from aiida.engine import run_get_node

from aiida_autopipe.engines.espresso.pw_input import read_pw_input
from aiida_autopipe.workflows.functions import jobs
from aiida_autopipe.workflows.pw_input import pw_builder

HARD = Path(__file__).parents[1] / "engines" / "espresso" / "data" / "hard"
RYDBERG = 13.605693122994
LOCAL_TF = "mixing_beta 0.7 -> 0.3, from scratch, local-TF mixing because the cell is long"
PLAIN = "mixing_beta 0.3 -> 0.1, from scratch, plain mixing instead of local-TF"

GOING_ON = "still converging: going on from the density with electron_maxstep 200"
# Whether the second converges within 100 iterations, or is about to, differs between processors.
SLOSHING = [
    ("al_long", -82.65915, [[LOCAL_TF]]),
    ("al_slab", -67.85302, [[LOCAL_TF], [LOCAL_TF, PLAIN], [LOCAL_TF, GOING_ON]]),
]


@pytest.mark.parametrize(("name", "energy_Ry", "ways"), SLOSHING)
def test_sloshing_charge(
    pw_code: Any, pseudo_folder: Path, name: str, energy_Ry: float, ways: list[list[str]]
) -> None:
    """40 Å of aluminium never converge with plain mixing; a slab with 15 Å of vacuum does.

    The energies are those of other settings: `mixing_mode = 'TF'` and 12 old densities for the
    first, and 200 iterations of local-TF mixing for the second.
    """
    parsed = read_pw_input((HARD / f"{name}.in").read_text())
    files = {one.name: pseudo_folder / one.pseudo for one in parsed.species}
    outputs, node = run_get_node(pw_builder(parsed, files, pw_code))
    rescue = outputs["rescue"].get_dict()
    assert node.is_finished_ok, rescue
    *actions, last_action = [step["action"] for step in rescue["steps"]]
    assert actions in ways and last_action == ""
    assert all("not converged" in step["failure"] for step in rescue["steps"][:-1])
    assert (rescue["outcome"], rescue["method"]) == ("rescued", "own")
    assert rescue["energy"] == pytest.approx(energy_Ry * RYDBERG, abs=2e-3)
    last = max(jobs(node), key=lambda job: job.pk)
    mode = last.inputs.parameters["ELECTRONS"]["mixing_mode"]
    assert mode == ("plain" if PLAIN in actions else "local-TF")
