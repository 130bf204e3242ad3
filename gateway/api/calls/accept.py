"""`Prefer: respond-async` on /invoke: the call is kept on disk, answered with 202, and run later."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from gateway.access.access import Admission
from gateway.api.calls.views import record_json, result_headers
from gateway.calls.idempotency import RequestDigest, key_of, known_by
from gateway.calls.kept_answer import cut_off_at_fault
from gateway.calls.kept_body import INLINE, KeptBody
from gateway.http.browser_policy import FROM_API
from gateway.http.deadline import Deadline
from gateway.http.forwarding import HeaderList, request_headers, target_of
from gateway.http.preferences import CALLBACK, Preferences
from gateway.http.problems import Problem
from gateway.invoke.body import ClientGone, Receive, RequestBody, Send
from gateway.invoke.checked_input import check_input
from gateway.invoke.endpoint import PREFIX, InvokeEndpoint
from gateway.invoke.ids import new_id
from gateway.invoke.methods import check_method
from gateway.memory.reservation import reservation_of
from pool.clock import Clock
from pool.observe.metrics import Metrics
from scheduler.calls.model import CallRecord
from scheduler.calls.running.worker import Worker
from scheduler.calls.store import LARGEST_KEPT, CallStore, KeyReused, StoreError
from scheduler.definitions.file import FunctionDefinition
from scheduler.definitions.language.call_overrides import NO_OVERRIDES, CallOverrides
from scheduler.definitions.language.callback_allow import Allowed
from scheduler.deploy.registry import Registry
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.work import NewCall, Payload, Request

NOT_KEPT = frozenset({b"prefer", b"content-length", b"transfer-encoding", b"expect", b"connection", CALLBACK})
"""Fields of the accepted request that a run must not see: they were about accepting it."""


class AcceptEndpoint:
    """Serves calls below /invoke/ that prefer an answer before they are run."""

    def __init__(
        self,
        endpoint: InvokeEndpoint,
        registry: Registry,
        dispatcher: Dispatcher,
        store: CallStore,
        worker: Worker,
        clock: Clock,
        metrics: Metrics,
        callbacks: Allowed,
    ) -> None:
        self._callbacks = callbacks
        self._endpoint = endpoint
        self._registry = registry
        self._dispatcher = dispatcher
        self._store = store
        self._worker = worker
        self._clock = clock
        self._metrics = metrics

    async def __call__(
        self, scope: Mapping[str, Any], receive: Receive, send: Send, wish: Preferences, admission: Admission
    ) -> None:
        """Serve one call, as ASGI. Every answer but the function's own is 202 or a problem."""
        try:
            record = await self._accept(scope, receive, wish, admission)
        except ClientGone:
            return
        except (KeyReused, StoreError, Problem) as error:
            await self._endpoint.refuse(scope, receive, send, error)
            return
        self._worker.notify()
        reservation_of(scope).shrink_to(0)  # the body is on disk, and the caller may wait for minutes
        if wish.wait is not None:
            if not record.status.ended:
                await self._worker.wait(record.id, wish.wait)
            try:
                record = await self._store.show(record.id) or record
                result = await self._store.result(record.id) if record.status.ended else None
            except StoreError:
                result = None  # it is kept all the same
            if result is not None:
                headers = [*result_headers(result, record), (b"preference-applied", wish.applied())]
                if result.payload is None:
                    await _answer(send, result.status, headers, result.body)
                    return
                await send({"type": "http.response.start", "status": result.status, "headers": headers})
                with cut_off_at_fault(record.id):
                    async for piece in self._store.pieces(result.payload.id):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                    await send({"type": "http.response.body", "body": b""})
                return
        body = record_json(record)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            *FROM_API,
            (b"location", f"/invocations/{record.id}".encode()),
            (b"preference-applied", wish.applied()),
            (b"x-invocation-id", record.id.encode()),
        ]
        await _answer(send, 202, headers, body)

    async def _accept(
        self, scope: Mapping[str, Any], receive: Receive, wish: Preferences, admission: Admission
    ) -> CallRecord:
        """Return the call when it is on disk. Raises `Problem`, `ClientGone`, and as the store does."""
        raw_name, _, sub_path = scope["raw_path"][len(PREFIX) :].partition(b"/")
        definition = self._definition(raw_name.decode("latin-1"))
        check_method(definition.contract, definition.name, scope["method"], sub_path)
        overrides = self._overrides(wish)
        target_of(sub_path, scope["query_string"])  # raises for what could not be sent on
        request_headers(scope, b"", definition.timeout)
        most, why = definition.body_limit, "max_body of the function"
        if most > LARGEST_KEPT:
            most, why = LARGEST_KEPT, "no more is kept of a call to be run later"
        body = RequestBody(receive, scope, most, why)
        headers = [pair for pair in scope["headers"] if pair[0] not in NOT_KEPT]
        key = key_of(headers)
        path, query = (part.decode("latin-1") for part in (sub_path, scope["query_string"]))
        digest = None if key is None else RequestDigest(headers, [scope["method"], path, query])
        kept = KeptBody(self._store, partial(self._begin_body, admission.caller), self._clock, direct=True)
        deadline = Deadline(self._clock, definition.timeout)
        try:
            data, payload = await _read(body, kept, digest)
            revision = self._dispatcher.revision_for(definition.name)
            if revision is not None and revision.limits.check is not None and payload is None:
                await check_input(revision.limits.check, data, scope, definition.name)
        except asyncio.CancelledError:
            kept.discard()
            if not deadline.caught():
                raise
            raise Problem("body-timeout", "the rest of the request's body did not come in time") from None
        except BaseException:
            kept.discard()
            raise
        finally:
            deadline.disarm()
        headers.append((b"content-length", b"%d" % body.size))
        client = scope.get("client")
        request = Request(
            scope["method"], sub_path, scope["query_string"], headers, client[0] if client else ""
        )
        call = NewCall(
            id=new_id(),
            function=definition.name,
            request=request,
            body=data,
            overrides=overrides,
            payload=payload,
            caller=admission.caller,
        )
        idempotency = known_by(admission, key, digest) if key is not None and digest is not None else None
        try:
            record = await self._store.accept(call, self._clock.wall(), idempotency)
        except (KeyReused, StoreError):
            kept.discard()
            raise
        if record.id == call.id:
            self._metrics.async_accepted.labels(call.function).value += 1
        return record

    async def _begin_body(self, caller: str, expected: int) -> int:
        now = self._clock.wall()
        return await self._worker.leases.lease(
            lambda owner: self._store.begin_body(owner, caller, expected, now)
        )

    def _overrides(self, wish: Preferences) -> CallOverrides:
        if not wish.callbacks:
            return NO_OVERRIDES
        if len(wish.callbacks) > 1:
            raise Problem("bad-request", "X-Hearth-Callback must be there once: a call has one callback")
        if (fault := self._callbacks.fault_of(wish.callbacks[0])) is not None:
            raise Problem("bad-request", f"X-Hearth-Callback: {fault}")
        return CallOverrides(callback=wish.callbacks[0])

    def _definition(self, name: str) -> FunctionDefinition:
        if self._dispatcher.draining:
            raise Problem("draining", "the gateway is shutting down", retry_after=5.0)
        declared = self._registry.declared.get(name)
        if declared is None:
            if not self._registry.loaded:
                raise Problem("no-capacity", "the functions are being loaded", retry_after=2.0)
            raise Problem("no-such-function", f"there is no function {name!r}; GET /functions lists them")
        return declared.definition


async def _read(
    body: RequestBody, kept: KeptBody, digest: RequestDigest | None
) -> tuple[bytes, Payload | None]:
    """Return a body that is small, or where it was kept as it came. Raises `Problem`, `ClientGone`, `StoreError`."""
    await body.read_ahead(INLINE + 1)
    if body.complete and body.size <= INLINE:  # as most are
        data = body.take()
        if digest is not None:
            digest.add(data)
        return data, None
    if body.length is not None:
        kept.expect([(b"content-length", b"%d" % body.length)])
    while data := await body.more():
        if digest is not None:
            digest.add(data)
        await kept.add(data)
    return await kept.end()


async def _answer(send: Send, status: int, headers: HeaderList, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
