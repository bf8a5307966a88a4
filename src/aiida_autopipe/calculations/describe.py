"""`autopipe.describe`: features of the structures of a dataset, as a calculation function."""

from __future__ import annotations

import tempfile
from pathlib import Path

from aiida.engine import calcfunction
from aiida.orm import Dict

from aiida_autopipe.calculations.functions import stated
from aiida_autopipe.core.descriptors.add import add_descriptors
from aiida_autopipe.core.descriptors.base import Descriptor
from aiida_autopipe.core.descriptors.make import make_descriptor
from aiida_autopipe.core.errors import InputError
from aiida_autopipe.data.dataset import FILENAME, DatasetData
from aiida_autopipe.data.potential import PotentialData


@calcfunction
@stated
def describe(dataset: DatasetData, potential: PotentialData, settings: Dict) -> DatasetData:
    """The same dataset with features of its atoms or, as averages, of its structures.

    They are in its file under `features/NAME`, NAME being that of the descriptor.

    Args:
        dataset: structures.
        potential: an ACE potential. Its elements are described, and without settings of the
            descriptor `ace` its basis describes them.
        settings: `descriptor` ('soap' or 'ace'), `average`, and `settings` of the descriptor.
    """
    values = settings.get_dict()
    descriptor = _descriptor(values["descriptor"], values.get("settings") or {}, potential)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILENAME
        dataset.copy_to(path)
        average = bool(values.get("average", True))
        add_descriptors(path, "/", descriptor, average=average, overwrite=True)
        return DatasetData.from_file(path)


def _descriptor(kind: str, settings: dict[str, object], potential: PotentialData) -> Descriptor:
    if kind != "ace" or settings:
        return make_descriptor(kind, settings, potential.elements)
    with tempfile.TemporaryDirectory() as folder:
        files = {path.suffix: path for path in potential.export(Path(folder))}
        model = files.get(".yaml") or files.get(".yace")
        if model is None:
            raise InputError(
                "The potential has no ACE basis to describe with: no .yaml or .yace file, only "
                f"{', '.join(potential.filenames)}; give settings of the descriptor."
            )
        return make_descriptor(kind, {}, model=model)
