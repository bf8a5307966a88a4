"""A work chain that goes on as soon as any of its processes has ended, not only when all have."""

from __future__ import annotations

import functools
from typing import Any

from aiida.engine import ToContext, WorkChain
from aiida.orm import ProcessNode, load_node
from plumpy.process_states import ProcessState

from aiida_autopipe.workflows.functions import exists


class RollingWorkChain(WorkChain):
    """Keeps some processes running at once; nobody waits for the slowest.

    AiiDA wakes a work chain when everything it waits for has ended. This one is woken by the first,
    and its outline step returns `wait_for_running` to wait for the others again. The context
    `running` maps the name of each process, its label, to its pk.

    A daemon that is killed between a submission and the next checkpoint would submit twice: use
    `adopt` first, which finds what was started under a name before.
    """

    def _action_awaitables(self) -> None:
        """Ask once for the end of each process, however often it is waited for."""
        watched: set[int] = self.__dict__.setdefault("_watched", set())
        for awaitable in self._awaitables:
            callback = functools.partial(self.call_soon, self._on_awaitable_finished, awaitable)
            if awaitable.pk not in watched:
                watched.add(awaitable.pk)
                self.runner.call_on_process_finish(awaitable.pk, callback)
            elif load_node(awaitable.pk).is_terminated:
                # It ended while this work chain was busy, when nobody waited for it.
                callback()

    def _on_awaitable_finished(self, awaitable: Any) -> None:
        """Note the end of a process and go on, although others still run."""
        current = [waiting for waiting in self._awaitables if waiting.pk == awaitable.pk]
        if not current:
            return
        super()._on_awaitable_finished(current[0])
        if self._awaitables and self.state == ProcessState.WAITING:
            self.resume()

    def adopt(self, name: str) -> ProcessNode | None:
        """The process that this work chain started under a name, None when there is none."""
        found = [node for node in self.node.called if node.label == name and exists(node)]
        return max(found, key=lambda node: node.pk) if found else None

    def wait_for_running(self) -> ToContext | None:
        """Wait until one of the running processes has ended; None when one has already."""
        nodes = {name: load_node(pk) for name, pk in self.ctx.running.items()}
        if any(node.is_terminated for node in nodes.values()):
            return None
        return ToContext(**{f"process_{name}": node for name, node in nodes.items()})

    def take_ended(self) -> dict[str, ProcessNode]:
        """Processes that have ended, by name; they no longer count as running."""
        nodes = {name: load_node(pk) for name, pk in self.ctx.running.items()}
        ended = {name: node for name, node in nodes.items() if node.is_terminated}
        self.ctx.running = {n: pk for n, pk in self.ctx.running.items() if n not in ended}
        return ended
