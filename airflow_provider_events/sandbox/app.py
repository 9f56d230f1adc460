"""The ASGI application: finds the vendor by path, lets it answer, and lets a fault spoil the answer."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from airflow_provider_events.sandbox.api import Call
from airflow_provider_events.sandbox.control import control_app
from airflow_provider_events.sandbox.vendors import Vendors
from airflow_provider_events.sandbox.wire import Wire

_CUT = frozenset({"cut", "lost"})


class SandboxApp:
    """Serves the vendors, in one process."""

    def __init__(self, vendors: Vendors) -> None:
        """`vendors`: they may be looked at and given orders meanwhile."""
        self._vendors = vendors
        self._control = control_app(vendors)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refusal = self._vendors.hosts.refusal(scope)
        if refusal is not None:
            await Wire(scope, receive, send).send(refusal)
            return
        api = self._vendors.at(scope["path"])
        if api is None:
            await self._control(scope, receive, send)
            return
        faults = self._vendors.faults  # those of before, if the body is still on its way when all is reset
        wire = Wire(scope, receive, send)
        call = Call.read(next(self._vendors.numbers), self._vendors.settings.clock(), scope, await wire.read())
        call.auth = api.authenticate(call)
        fault = faults.pick(api.name, call)
        if fault is None:
            answer = api.respond(call, scope)
            api.log(call, answer.status, None)
            await wire.send(answer)
            return
        answer = api.respond(call, scope) if fault.accepts else api.refusal(503, "Injected by the sandbox")
        answer = fault.distort(api, answer, call.at)
        api.log(call, 0 if fault.kind in _CUT else answer.status, fault.kind)
        await fault.deliver(answer, wire)
