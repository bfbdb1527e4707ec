"""`/health/live` and `/health/ready`."""

from typing import Any

import falcon

from app.admin.guard import Guard
from app.admin.views import answer_json, show_reason
from app.health import STARTING
from app.manager import PluginManager
from app.responses import Problem


class HealthResource:
    """`/health/live`: the process answers. `/health/ready`: what is registered is served."""

    def __init__(self, manager: PluginManager, guard: Guard) -> None:
        self._manager = manager
        self._guard = guard

    def on_get_live(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 as long as this process answers at all."""
        answer_json(resp, {"status": "live"})

    def on_get_ready(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 with `ready`, or with `degraded` while not all is as it should be.

        How many reasons there are is for everybody, which they are for who may read the admin API.
        """
        health = self._manager.health
        reasons: dict[str, Any] = {}
        if health.reasons:
            reasons["reason_count"] = len(health.reasons)
            if self._guard.may_read(req):
                reasons["reasons"] = [show_reason(reason) for reason in health.reasons]
        if not health.serves:
            raise Problem(
                503,
                "This process is still starting."
                if health.status == STARTING
                else "Nothing of what is registered is served.",
                headers={"Retry-After": "1"},
                members=reasons,
            )
        answer_json(resp, {"status": health.status, **reasons})
