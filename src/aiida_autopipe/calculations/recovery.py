"""Jobs that come to the same end when the worker that runs them is killed, whenever that is."""

from __future__ import annotations

from typing import Any

from aiida.common.datastructures import CalcJobState
from aiida.engine import CalcJob
from aiida.orm import RemoteData
from aiida_quantumespresso.calculations import pw


class RecoveringCalcJob(CalcJob):
    """A job that keeps its output `remote_folder` when its worker dies right after the upload.

    The upload is noted in the state of the node, but the folder itself only becomes an output with
    the next checkpoint. AiiDA 2.9 repeats the step, sees the state, and does nothing: a required
    output is missing for good, and the work chain above fails for it.
    """

    def load_instance_state(self, saved_state: Any, load_context: Any) -> None:
        """Continue from a checkpoint, with the folder of an upload that it does not know of."""
        super().load_instance_state(saved_state, load_context)
        node = self.node
        folder = node.get_remote_workdir()
        uploaded = folder is not None and node.get_state() == CalcJobState.UNSTASHING
        if uploaded and not node.is_terminated and "remote_folder" not in self.outputs:
            self.out("remote_folder", RemoteData(remote_path=folder, computer=node.computer))


class PwCalculation(RecoveringCalcJob, pw.PwCalculation):
    """A calculation of aiida-quantumespresso in all but its recovery, and recorded as one."""

    @classmethod
    def build_process_type(cls) -> str:
        """Queries for calculations of pw.x find these too."""
        return str(pw.PwCalculation.build_process_type())

    def _setup_version_info(self) -> dict[str, Any]:
        versions = self.runner.plugin_version_provider.get_version_info(pw.PwCalculation)
        self.node.base.attributes.set_many(versions)
        return dict(versions)
