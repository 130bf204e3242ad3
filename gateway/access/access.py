"""The check at the door: whose key a request carries, whether it may do this, and whether it is within its limits.

Synchronous and cheap: it runs before everything else on each request. Without any key it is one comparison.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from gateway.access.key_file import KeyFile, KeyFileFault
from gateway.access.keys import LENGTH, Key
from gateway.access.scopes import right_for
from gateway.http.forwarding import HeaderList
from gateway.http.problems import Problem
from pool.clock import Clock
from pool.observe.metrics import Metrics

log = logging.getLogger("hearth.access")

LOOK_EVERY = 0.25
"""Seconds between two looks at the key file: so long a revoked key may live. A look is one system call."""
SCHEME = b"bearer "
CARRIERS = frozenset({b"authorization", b"x-hearth-key"})
"""Fields that a key may come in."""
CONCURRENCY_RETRY = 1.0
"""Seconds to wait where as many calls run as may at once: when one ends is not known."""
Fault = Literal["missing", "malformed", "unknown", "wrong", "expired"]
HOW = "send Authorization: Bearer hth_..., or X-Hearth-Key: hth_..."
FAULTS: dict[Fault, str] = {
    "missing": f"a key is needed: {HOW}",
    "malformed": f"the credential is not a key of Hearth: {HOW}",
    "unknown": "the key is unknown or was revoked; hearth keys list shows the valid ones",
    "wrong": "the key is unknown or was revoked; hearth keys list shows the valid ones",
    "expired": "the key has expired; hearth keys create makes a new one",
}
"""Faults of a credential, with the detail for its sender. It does not tell how much of the credential was right."""
REASONS = (*FAULTS, "scope", "rate", "concurrency")
"""Why a request is refused, as the metric calls it."""


EVERYTHING, NOTHING = "everything", "nothing"
"""How much a caller may learn of, in a word. No scope is called so."""


class Admission:
    """A request that is admitted. As it is: by a gateway without keys, where everybody may do everything."""

    __slots__ = ()

    @property
    def caller(self) -> str:
        """Tells callers apart: the id of the key; empty where nobody has one."""
        return ""

    def ended(self) -> None:
        """The invocation has ended, however it did. To be called once for each that was admitted."""

    def may_name(self, function: str) -> bool:
        """Whether the caller may learn that there is this function."""
        return True

    @property
    def sight(self) -> str:
        """Return what the caller may learn of: who has the same may name the same functions."""
        return EVERYTHING

    @property
    def sees_all(self) -> bool:
        """Return whether the caller may learn of every function: then nobody needs to ask for each."""
        return self.sight is EVERYTHING

    def may_invoke(self, function: str) -> bool:
        """Whether the caller may call this function, and so decide about calls of it."""
        return True

    def may_invoke_any(self, functions: Iterable[str]) -> bool:
        """Return whether the caller may call one of these functions, or any whatever its name."""
        return True

    @property
    def may_deploy(self) -> bool:
        """Whether the caller may have images run that nobody has declared."""
        return True

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Count a body that is on its way, of a request that is not a call. Raises `Problem` 429 if there are as many
        as the key's concurrency already."""
        yield


class Visit(Admission):
    """A request without a good key, of a route that needs none."""

    __slots__ = ()

    def may_name(self, function: str) -> bool:
        """Only who has a key is told what there is."""
        return False

    @property
    def sight(self) -> str:
        return NOTHING

    @property
    def may_deploy(self) -> bool:
        return False


class Tenant(Admission):
    """A key, and what is being done with it."""

    __slots__ = ("_sending", "bucket", "key", "running")

    def __init__(self, key: Key, now: float) -> None:
        self.key = key
        self.running = 0
        """Invocations, those that wait included."""
        self._sending = 0
        """Bodies on their way, of requests that are not calls."""
        self.bucket = key.quota.bucket(now)

    @property
    def caller(self) -> str:
        return self.key.id

    def ended(self) -> None:
        """One of its invocations has ended."""
        self.running -= 1

    def may_name(self, function: str) -> bool:
        """What it may invoke, and everything if it may read."""
        return self.key.scopes.has("read") or self.key.scopes.may_invoke(function)

    @property
    def sight(self) -> str:
        scopes = self.key.scopes
        return EVERYTHING if scopes.has("read") or scopes.any_function else " ".join(sorted(scopes.words))

    def may_invoke(self, function: str) -> bool:
        return self.key.scopes.may_invoke(function)

    def may_invoke_any(self, functions: Iterable[str]) -> bool:
        scopes = self.key.scopes
        return scopes.any_function or any(map(scopes.may_invoke, functions))

    @property
    def may_deploy(self) -> bool:
        return self.key.scopes.has("deploy")

    @contextmanager
    def sending(self) -> Iterator[None]:
        limit = self.key.quota.concurrency
        if limit is not None and self._sending >= limit:
            detail = f"the key {self.key.name} sends {limit} bodies already (its concurrency); wait for one"
            raise Problem("quota-exceeded", detail, CONCURRENCY_RETRY)
        self._sending += 1
        try:
            yield
        finally:
            self._sending -= 1


OPEN, VISIT = Admission(), Visit()
CURRENT: ContextVar[Admission] = ContextVar("admission", default=OPEN)
"""The admission of the request that a route is answering."""


def check_may_start_any(names: Iterable[str]) -> None:
    """Raise `Problem` 403 unless the caller may start one of these functions and jobs, or deploy: asked before a body
    is read that says which it is."""
    admission = CURRENT.get()
    if not admission.may_deploy and not admission.may_invoke_any(names):
        raise Problem("forbidden", "the key may invoke no function or job here: the request starts nothing")


class Access:
    """Who may do what on one gateway.

    `configured` are the keys of HEARTH_API_KEYS; those of `file` come after them and follow its changes. `closed`:
    without any key nobody is admitted, else everybody is. Raises `KeyFileFault`.
    """

    def __init__(
        self,
        clock: Clock,
        metrics: Metrics,
        configured: Sequence[Key] = (),
        file: KeyFile | None = None,
        closed: bool = False,
    ) -> None:
        self._clock = clock
        self._configured = configured
        self._file = file
        self._seen = file.signature() if file else None
        self._refusals = {reason: metrics.access_refusals.labels(reason) for reason in REASONS}
        self._tenants: dict[bytes, Tenant] | None = {} if closed else None
        """By the id; None: no key is configured, everybody is admitted."""
        keys = file.load() if file else []
        if closed or keys or configured:
            self._take_over(keys)

    @property
    def keys(self) -> int | None:
        """How many keys are known; None: none is, and everybody is admitted."""
        return None if self._tenants is None else len(self._tenants)

    @property
    def closed(self) -> bool:
        """Whether a key is needed."""
        return self._tenants is not None

    # -- the check ------------------------------------------------------------------------------------------

    def admit_call(self, headers: HeaderList, raw_path: bytes) -> Admission | Problem:
        """Whether an invocation may begin. `raw_path` is `/invoke/NAME` or longer, as it was sent.

        The credential is taken out of `headers`. What is admitted must be told of its end, once.
        """
        if self._tenants is None:
            return OPEN
        tenant = self._identify(headers)
        if isinstance(tenant, Problem):
            return tenant
        function = raw_path.split(b"/", 3)[2].decode("latin-1")
        if not tenant.key.scopes.may_invoke(function):
            return self._not_allowed(tenant, f"invoke:{function}", f"invoke {function!r}")
        limit = tenant.key.quota.concurrency
        if limit is not None and tenant.running >= limit:
            detail = f"the key {tenant.key.name} has {limit} calls in progress (its concurrency); wait for one to end"
            return self._refused("concurrency", Problem("quota-exceeded", detail, CONCURRENCY_RETRY))
        fault = self._over_rate(tenant)
        if fault is not None:
            return fault
        tenant.running += 1
        return tenant

    def would_admit(self, headers: HeaderList, raw_path: bytes) -> bool:
        """Return whether `admit_call` may admit this call, as far as its head and its limit of calls at once say.

        Nothing is counted.
        """
        if self._tenants is None:
            return True
        tenant = self._find(take_credential(headers.copy()))
        if not isinstance(tenant, Tenant):
            return False
        limit = tenant.key.quota.concurrency
        function = raw_path.split(b"/", 3)[2].decode("latin-1")
        return tenant.key.scopes.may_invoke(function) and (limit is None or tenant.running < limit)

    def admit_request(self, headers: HeaderList, method: str, path: str) -> Admission | Problem:
        """Whether any other request may be served. The credential is taken out of `headers`."""
        if self._tenants is None:
            return OPEN
        right = right_for(method, path)
        if right is None:
            visitor = self._find(take_credential(headers))
            return visitor if isinstance(visitor, Tenant) else VISIT
        tenant = self._identify(headers)
        if isinstance(tenant, Problem):
            return tenant
        if right != "invoke" and not tenant.key.scopes.has(right):
            return self._not_allowed(tenant, right, f"{method} {path}")
        return self._over_rate(tenant) or tenant

    def charge(self, admission: Admission, more: int) -> Problem | None:
        """Count so many further requests of the caller of one that carries them. They may be more than the key has
        left: then its next request waits until they are made up for. A problem: it has such already."""
        if more == 0 or not isinstance(admission, Tenant) or admission.bucket is None:
            return None
        wait = admission.bucket.owe(more, self._clock.now())
        return None if wait == 0.0 else self._used_up(admission, wait)

    def give_back(self, admission: Admission, more: int) -> None:
        """What was charged was for nothing: nothing of it was done."""
        if isinstance(admission, Tenant) and admission.bucket is not None:
            admission.bucket.give_back(more, self._clock.now())

    def _find(self, credential: bytes | None) -> Tenant | Fault:
        """Whose credential it is, or what is wrong with it."""
        if credential is None:
            return "missing"
        if len(credential) != LENGTH or not credential.startswith(b"hth_"):
            return "malformed"
        tenant = (self._tenants or {}).get(credential[4:12])
        if tenant is None:
            return "unknown"
        key = tenant.key
        if not key.is_of(credential):
            return "wrong"
        if key.expires is not None and self._clock.wall() >= key.expires:
            return "expired"
        return tenant

    def _identify(self, headers: HeaderList) -> Tenant | Problem:
        found = self._find(take_credential(headers))
        if isinstance(found, Tenant):
            return found
        challenge = b'Bearer realm="hearth"' + (b"" if found == "missing" else b', error="invalid_token"')
        problem = Problem("unauthorized", FAULTS[found], headers=((b"www-authenticate", challenge),))
        return self._refused(found, problem)

    def _not_allowed(self, tenant: Tenant, scope: str, deed: str) -> Problem:
        words = ", ".join(tenant.key.scopes.words)
        detail = f"the key {tenant.key.name} may not {deed}: this needs {scope}, and the key has {words}"
        challenge = b'Bearer realm="hearth", error="insufficient_scope"'
        return self._refused(
            "scope", Problem("forbidden", detail, headers=((b"www-authenticate", challenge),))
        )

    def _over_rate(self, tenant: Tenant) -> Problem | None:
        bucket = tenant.bucket
        if bucket is None or (wait := bucket.take(self._clock.now())) == 0.0:
            return None
        return self._used_up(tenant, wait)

    def _used_up(self, tenant: Tenant, wait: float) -> Problem:
        detail = f"the key {tenant.key.name} has used up its rate, {tenant.key.quota.rate}; try again later"
        return self._refused("rate", Problem("quota-exceeded", detail, wait))

    def _refused(self, reason: str, problem: Problem) -> Problem:
        self._refusals[reason].value += 1
        return problem

    # -- changes --------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Take over every change of the key file, until cancelled. A faulty one is told and not taken over."""
        while self._file is not None:
            await self._clock.sleep(LOOK_EVERY)
            self.look()

    def look(self) -> None:
        """Take over the key file if it has changed."""
        if self._file is None or (signature := self._file.signature()) == self._seen:
            return
        self._seen = signature
        try:
            keys = self._file.load()
        except KeyFileFault as error:
            log.error("%s. The keys that were there before stay", error)
            return
        if not keys and signature is None and not self.closed:
            return
        self._take_over(keys)
        log.info("the keys have changed: %d are known", self.keys or 0)

    def _take_over(self, from_file: Sequence[Key]) -> None:
        """Know these keys and no others, and admit nobody without one from now on.

        A file that is written without any key closes the gateway as well: there was one, if only for a moment.
        """
        keys = {key.id.encode(): key for key in (*from_file, *self._configured)}
        before, now = self._tenants or {}, self._clock.now()
        tenants: dict[bytes, Tenant] = {}
        for id, key in keys.items():
            tenant = before.get(id)
            if tenant is None:
                tenant = Tenant(key, now)
            elif tenant.key != key:  # what runs with it is counted on
                if tenant.key.quota != key.quota:
                    tenant.bucket = key.quota.bucket(now)
                tenant.key = key
            tenants[id] = tenant
        self._tenants = tenants


def take_credential(headers: HeaderList) -> bytes | None:
    """The credential of a request, taken out of its headers, so that nothing behind this can pass it on.

    X-Hearth-Key goes before Authorization, which then belongs to the function, unless it is a key as well.
    """
    own = bearer = None
    carriers = 0
    for pair in headers:
        name = pair[0]
        if name not in CARRIERS:
            continue
        carriers += 1
        if name == b"authorization":
            bearer = pair
        else:
            own = pair
    if bearer is not None and carriers == 1:  # as nearly every client sends it
        headers.remove(bearer)
    elif carriers:
        headers[:] = [
            (name, value)
            for name, value in headers
            if name != b"x-hearth-key"
            and (name != b"authorization" or (own is not None and b"hth_" not in value))
        ]
    if own is not None:
        return own[1].strip()
    if bearer is None:
        return None
    value = bearer[1]
    return value[len(SCHEME) :].strip() if value[: len(SCHEME)].lower() == SCHEME else b""
