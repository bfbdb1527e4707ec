"""`/workers`: the processes that serve, on all hosts."""

import falcon

from app.admin.views import answer_json, show_time
from app.manager import PluginManager


class WorkersResource:
    """`/workers`: the processes that serve, on all hosts."""

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the live processes, with what each says in its health check."""
        answer_json(
            resp,
            [
                {
                    "id": worker.id,
                    "host": worker.host,
                    "pid": worker.pid,
                    "generations_alive": worker.generations_alive,
                    "started_at": show_time(worker.started_at),
                    "heartbeat_at": show_time(worker.heartbeat_at),
                    "status": worker.status,
                    "reasons": worker.reasons,
                    "owns": worker.owns,
                }
                for worker in self._manager.fleet.workers()
            ],
        )
