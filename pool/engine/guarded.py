"""Guards an engine with a circuit breaker: while the engine does not answer, every verb fails at once.

Calls that the engine did not answer count against it, and so do its own faults. Every verb has a time-out. If a verb
takes suspiciously long, a ping tells a slow engine from one that hangs. While the breaker is open, only the guard
itself asks the engine, now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TypeVar

from pool.backoff import jitter
from pool.clock import Clock, Timeout
from pool.engine.base import (
    Attachment,
    ContainerEvent,
    ContainerSpec,
    ContainerState,
    Engine,
    EngineDown,
    EngineError,
    EngineFault,
    EngineInfo,
    EngineUnreachable,
    Image,
    Network,
    NotFound,
)
from pool.engine.breaker import Breaker, BreakerState
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor

T = TypeVar("T")

log = logging.getLogger("hearth.engine")

VERB_TIMEOUT = 30.0
"""Seconds for a verb that waits neither for a container's end nor for a build."""
BUILD_TIMEOUT = 600.0
SUSPICIOUS = 2.0
"""Seconds without an answer after which a ping checks that the engine lives."""
PROBE_TIMEOUT = 8.0
"""Seconds for a ping, and for a list of containers: more than an engine needs that is merely slow."""
NOBODY = {"org.hearth.probe": ""}
"""A label that no container has: listing such containers tests the engine's database at no cost."""


class GuardedEngine:
    """An engine with time-outs and a breaker.

    Every verb may raise `EngineDown`. Then nothing was asked, or nobody waits for the answer any more; the engine may
    still carry the verb out.
    """

    def __init__(self, engine: Engine, clock: Clock, metrics: Metrics, supervisor: Supervisor) -> None:
        self.breaker = Breaker()
        self.on_recovery: list[Callable[[], None]] = []
        """Functions to call when the engine answers again."""
        self.on_no_image: list[Callable[[str], None]] = []
        """Functions to call with an image that the engine lacks, when a container needs it."""
        self._engine = engine
        self._clock = clock
        self._supervisor = supervisor
        self._gauge = metrics.engine_breaker_open
        self._gauge.set(0)
        self._fault: Exception | None = None
        self._under_way: set[_Wait] = set()
        self._recovering: asyncio.Task[None] | None = None
        self._doubting: asyncio.Task[None] | None = None

    def down(self) -> EngineDown | None:
        """Return why no verb is tried now, or None if verbs are tried."""
        if self.breaker.state is BreakerState.CLOSED:
            return None
        now = self._clock.now()
        return EngineDown(
            f"the engine has not answered for {now - self.breaker.since:.0f} s: {self._fault}",
            max(1.0, self.breaker.retry_in(now)),
        )

    # -- the verbs --------------------------------------------------------------------------------------------

    async def info(self) -> EngineInfo:
        return await self._call(self._engine.info)

    async def ping(self) -> None:
        try:
            await self._call(self._engine.ping, PROBE_TIMEOUT)
        except EngineDown:
            raise
        except EngineError as error:
            self._trip(error)
            raise

    async def create(self, spec: ContainerSpec) -> str:
        try:
            return await self._call(lambda: self._engine.create(spec))
        except NotFound:
            for told in self.on_no_image:
                told(spec.image)
            raise

    async def start(self, container: str) -> None:
        await self._call(lambda: self._engine.start(container))

    async def inspect(self, container: str) -> ContainerState:
        return await self._call(lambda: self._engine.inspect(container))

    async def remove(self, container: str) -> None:
        await self._call(lambda: self._engine.remove(container))

    async def containers(self, labels: Mapping[str, str]) -> list[ContainerState]:
        return await self._call(lambda: self._engine.containers(labels))

    async def attach(self, container: str, stdin: bool = True, output: bool = True) -> Attachment:
        return await self._call(lambda: self._engine.attach(container, stdin, output))

    async def wait(self, container: str) -> int:
        return await self._call(lambda: self._engine.wait(container), None)  # as long as the container runs

    async def logs(self, container: str, limit: int) -> bytes:
        return await self._call(lambda: self._engine.logs(container, limit))

    async def archive(self, container: str, path: str, limit: int) -> bytes:
        return await self._call(lambda: self._engine.archive(container, path, limit))

    async def resize(self, container: str, memory: int, cpus: float) -> None:
        await self._call(lambda: self._engine.resize(container, memory, cpus))

    async def pause(self, container: str) -> None:
        await self._call(lambda: self._engine.pause(container))

    async def unpause(self, container: str) -> None:
        await self._call(lambda: self._engine.unpause(container))

    def events(self, labels: Mapping[str, str]) -> AsyncIterator[ContainerEvent]:
        down = self.down()
        return self._follow(down or self._engine.events(labels))

    async def image(self, reference: str) -> Image:
        return await self._call(lambda: self._engine.image(reference))

    async def images(self, labels: Mapping[str, str]) -> list[Image]:
        return await self._call(lambda: self._engine.images(labels))

    async def build(self, context: bytes, tag: str, labels: Mapping[str, str]) -> Image:
        return await self._call(lambda: self._engine.build(context, tag, labels), BUILD_TIMEOUT)

    async def remove_image(self, reference: str) -> None:
        await self._call(lambda: self._engine.remove_image(reference))

    async def networks(self, labels: Mapping[str, str]) -> list[Network]:
        return await self._call(lambda: self._engine.networks(labels))

    async def create_network(
        self, name: str, bridge: str, internal: bool, labels: Mapping[str, str]
    ) -> Network:
        return await self._call(lambda: self._engine.create_network(name, bridge, internal, labels))

    async def remove_network(self, name: str) -> None:
        await self._call(lambda: self._engine.remove_network(name))

    async def close(self) -> None:
        tasks = [task for task in (self._recovering, self._doubting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._engine.close()

    # -- time-outs and the breaker ---------------------------------------------------------------------------

    async def _call(self, verb: Callable[[], Awaitable[T]], limit: float | None = VERB_TIMEOUT) -> T:
        down = self.down()
        if down is not None:
            raise down
        try:
            async with self._bounded(limit) as wait:
                result = await verb()
        except TimeoutError:
            if wait.given_up:
                raise EngineDown(f"the engine does not answer: {self._fault}", 1.0, asked=True) from None
            error = EngineUnreachable(f"the engine did not answer within {limit:g} s")
            self._failed(error)
            raise error from None
        except (EngineUnreachable, EngineFault) as error:
            self._failed(error)
            raise
        except EngineError:
            self.breaker.answered(self._clock.now())
            raise
        self.breaker.answered(self._clock.now())
        return result

    @contextlib.asynccontextmanager
    async def _bounded(self, limit: float | None) -> AsyncIterator[_Wait]:
        """Run the block with a limit: raise `TimeoutError` after `limit` seconds, or when the breaker opens."""
        async with self._clock.timeout(limit) as scope:
            wait = _Wait(scope)
            self._under_way.add(wait)
            doubt = self._clock.call_later(SUSPICIOUS, self._doubt) if limit == VERB_TIMEOUT else None
            try:
                yield wait
            finally:
                self._under_way.discard(wait)
                if doubt is not None:
                    doubt.cancel()

    async def _follow(
        self, events: AsyncIterator[ContainerEvent] | EngineDown
    ) -> AsyncIterator[ContainerEvent]:
        if isinstance(events, EngineDown):
            raise events
        try:
            async for event in events:
                yield event
        except (EngineUnreachable, EngineFault) as error:
            self._failed(error)
            raise

    def _failed(self, error: Exception) -> None:
        if self.breaker.failed(self._clock.now(), jitter()):
            self._opened(error)

    def _doubt(self) -> None:
        """Have a ping decide whether the engine is slow or hangs, as a verb takes long."""
        if self.breaker.state is BreakerState.CLOSED and (self._doubting is None or self._doubting.done()):
            self._doubting = self._supervisor.supervise("engine-check", self._check)

    async def _check(self) -> None:
        try:
            async with _limited(self._clock):
                await self._engine.ping()
        except EngineError as error:
            self._trip(error)

    async def _probe(self) -> None:
        """Raise `EngineError` unless the engine answers in time and lists containers."""
        async with _limited(self._clock):
            await self._engine.ping()
        async with _limited(self._clock):
            await self._engine.containers(NOBODY)

    def _trip(self, error: Exception) -> None:
        """Open the breaker at once, as a ping has failed."""
        if self.breaker.trip(self._clock.now(), jitter()):
            self._opened(error)

    def _opened(self, error: Exception) -> None:
        self._fault = error
        self._gauge.set(1)
        log.warning("The container engine does not answer; it gets only pings until it does: %s", error)
        for wait in list(self._under_way):
            wait.give_up()
        if self._recovering is not None:
            self._recovering.cancel()  # one whose attempt something else has just ended
        self._recovering = self._supervisor.supervise("engine-recovery", self._recover)

    async def _recover(self) -> None:
        """Try the engine now and then until it answers. It may be restarted at any moment."""
        breaker, clock = self.breaker, self._clock
        while breaker.state is not BreakerState.CLOSED:
            await clock.sleep(breaker.retry_in(clock.now()))
            breaker.try_again()
            try:
                await self._probe()
            except EngineError as error:
                self._fault = error
                breaker.failed(clock.now(), jitter())
            else:
                away = clock.now() - breaker.since
                breaker.answered(clock.now())
                self._gauge.set(0)
                log.warning("The container engine answers again after %.1f s", away)
                self._tell_recovery()

    def _tell_recovery(self) -> None:
        for told in self.on_recovery:
            try:
                told()
            except Exception:  # the others must be told all the same
                log.exception(
                    "A listener failed when it was told that the engine is back; telling the others"
                )


class _Wait:
    """The wait of one verb for its answer."""

    __slots__ = ("_scope", "given_up")

    def __init__(self, scope: Timeout) -> None:
        self._scope = scope
        self.given_up = False
        """True if it ended because the engine does not answer."""

    def give_up(self) -> None:
        """End the wait now: no answer will come."""
        self.given_up = True
        self._scope.expire()


@contextlib.asynccontextmanager
async def _limited(clock: Clock) -> AsyncIterator[None]:
    """Raise `EngineUnreachable` in the block after `PROBE_TIMEOUT`."""
    try:
        async with clock.timeout(PROBE_TIMEOUT):
            yield
    except TimeoutError:
        raise EngineUnreachable(f"the engine did not answer within {PROBE_TIMEOUT:g} s") from None
