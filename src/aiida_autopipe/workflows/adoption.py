"""A restarting work chain that submits no process twice when its daemon is killed."""

from __future__ import annotations

from aiida.engine import BaseRestartWorkChain, ToContext, append_

from aiida_autopipe.workflows.functions import jobs


class AdoptingRestartWorkChain(BaseRestartWorkChain):
    """Takes over the job of an iteration that was begun but not noted.

    A job is submitted in one step and noted in the checkpoint after it. A daemon that is killed in
    between repeats the step; the job it started is then found in the provenance graph.
    """

    def run_process(self) -> ToContext:
        """Submit the next process, or go on with the one that was submitted already."""
        known = {child.pk for child in self.ctx.get("children", [])}
        unknown = [job for job in jobs(self.node) if job.pk not in known]
        if not unknown:
            return super().run_process()
        self.ctx.iteration += 1
        key = self._considered_handlers_extra
        handlers = self.node.base.extras.get(key, [])
        handlers += [[] for _ in range(self.ctx.iteration - len(handlers))]
        self.node.base.extras.set(key, handlers)
        self.report(f"going on with {unknown[-1].process_label}<{unknown[-1].pk}>")
        return ToContext(children=append_(unknown[-1]))
