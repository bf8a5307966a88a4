"""``mlip-auto embed``: a small periodic cell around one atom of a frame, without AiiDA."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_autopipe.cli import options
from aiida_autopipe.core.errors import InputError

if TYPE_CHECKING:
    from aiida_autopipe.core.embed_sanity import Sanity


@click.command()
@click.argument("frame", type=options.FILE)
@click.option(
    "--atom", type=int, required=True, metavar="I",
    help="The atom in the middle, counted from 0; negative numbers count from the end.",
)  # fmt: skip
@click.option(
    "--radius", type=float, required=True, metavar="Å",
    help="Radius of the core, whose forces are to be learned.",
)  # fmt: skip
@click.option(
    "--buffer", type=float, required=True, metavar="Å",
    help="Thickness of what surrounds the core; the cutoff of the potential is a good choice.",
)  # fmt: skip
@click.option(
    "--index", type=int, default=-1, show_default=True, metavar="N",
    help="Which structure of FRAME, counted from 0; -1 is the last.",
)  # fmt: skip
@click.option(
    "--crystal", type=options.FILE, metavar="FILE",
    help="The unstrained crystal; where FRAME is a supercell of it, in the same orientation, the "
    "new cell will be one too.",
)  # fmt: skip
@click.option(
    "--potential", type=options.FILE, metavar="FILE",
    help="A .yace or .yaml with which the buffer is relaxed where its boundary is too dense.",
)  # fmt: skip
@click.option("-o", "--output", type=options.FILE, required=True, help="The cell, an .extxyz.")
@options.JSON_OUTPUT
def embed(
    frame: Path,
    atom: int,
    radius: float,
    buffer: float,
    index: int,
    crystal: Path | None,
    potential: Path | None,
    output: Path,
    json_path: Path | None,
) -> None:
    """Cut a small periodic cell out of FRAME around an atom that the potential does not know.

    The atoms within --radius get force_mask 1: their forces are learned. The others, up to
    --buffer further away, keep the surroundings of the core as they are and get force_mask 0. By
    default the cell is a cube of the side 2 (radius + buffer); a frame that is no larger is taken
    whole. `mlip-auto label` and `mlip-auto fit` understand the mask.

    \b
    Example:
        mlip-auto embed halted.extxyz --atom 117 --radius 4 --buffer 5 -o cell.extxyz
    """
    from aiida_autopipe.core.embed import embed as cut
    from aiida_autopipe.core.embed_sanity import make_sane
    from aiida_autopipe.core.structure_files import write_extxyz

    options.check_json_path(json_path)
    if output.suffix != ".extxyz":
        raise InputError(f"The output '{output}' must end in .extxyz.")
    if not output.parent.is_dir():
        raise InputError(f"The folder '{output.parent}' of the output does not exist.")
    whole = options.structure_at(frame, index)
    reference = None if crystal is None else options.structure_at(crystal, 0)
    found = make_sane(cut(whole, atom, radius, buffer, reference), whole, _calculator(potential))
    write_extxyz([found.embedding.atoms], output)
    options.write_json(json_path, _as_dict(found, output))
    if str(json_path) != "-":
        if reference is not None and found.embedding.shape == "cube":
            click.echo(f"The frame is no supercell of '{crystal}' in the same orientation.")
        _print(found, len(whole), output)


def _calculator(path: Path | None) -> Any:
    if path is None:
        return None
    from aiida_autopipe.core.ace.calculator import ACECalculator

    return ACECalculator(path, gamma=False)


def _as_dict(found: Sanity, output: Path) -> dict[str, Any]:
    embedding = found.embedding
    return {
        "output": str(output),
        "cell": embedding.shape,
        "atoms": len(embedding.atoms),
        "core": embedding.n_core,
        "density_ratio": embedding.density_ratio,
        "excess": embedding.excess,
        "odd_electrons": embedding.odd_electrons,
        "closest_pair": embedding.closest,
        "pushed": found.pushed,
        "relaxation_steps": found.relaxed,
        "largest_move": found.largest_move,
        "still_close": found.still_close,
    }


_SHAPES = {
    "cube": "a cube",
    "lattice": "a supercell of the crystal",
    "frame": "a cell of the frame's shape, cut along its long directions",
    "whole": "the whole frame, which is no larger than the cut-out",
}


def _print(found: Sanity, n_frame: int, output: Path) -> None:
    embedding = found.embedding
    click.echo(
        f"{len(embedding.atoms)} of {n_frame} atoms in {_SHAPES[embedding.shape]}; "
        f"{embedding.n_core} in the core have force_mask 1."
    )
    lengths = " x ".join(f"{x:.2f}" for x in embedding.atoms.cell.lengths())
    click.echo(
        f"{lengths} Å, density {embedding.density_ratio:.3f} of the frame's, closest pair "
        f"{embedding.closest:.2f} Å."
    )
    excess = ", ".join(f"{e} {n:+g}" for e, n in embedding.excess.items() if abs(n) > 0.5)
    if excess:
        click.echo(f"Atoms against the composition of the frame: {excess}.")
    if found.pushed:
        click.echo(
            f"{found.pushed} buffer atoms were too close at the new boundary and were moved by up "
            f"to {found.largest_move:.2f} Å ({found.relaxed} steps with the potential)."
        )
    if found.still_close:
        click.echo(f"{found.still_close} pairs of the core are closer than any bond.")
    if embedding.odd_electrons:
        click.echo("The number of electrons is odd: label it with spin or smearing.")
    click.echo(f"Written to {output}.")
