"""The access check of a request: its key, the scopes of the key, and its limits.

It is synchronous and cheap, because it runs before everything else on each request. Without any key it is one
comparison.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from gateway.access.credential import take_credential
from gateway.access.key_file import KeyFile, KeyFileFault
from gateway.access.keys import LENGTH, Key
from gateway.access.scopes import right_for
from gateway.http.forwarding import HeaderList
from gateway.http.problems import Problem
from pool.clock import Clock
from pool.observe.metrics import Metrics

log = logging.getLogger("hearth.access")

LOOK_SECONDS = 0.25
"""Time between two looks at the key file: a revoked key lives no longer than this. A look is one system call."""
CONCURRENCY_RETRY_SECONDS = 1.0
"""`Retry-After` for a key that has used up its concurrency. Nobody knows when one of its calls ends."""
Fault = Literal["missing", "malformed", "unknown", "wrong", "expired"]
HOW_TO_SEND = "send Authorization: Bearer hth_..., or X-Hearth-Key: hth_..."
FAULTS: dict[Fault, str] = {
    "missing": f"a key is needed: {HOW_TO_SEND}",
    "malformed": f"the credential is not a key of Hearth: {HOW_TO_SEND}",
    "unknown": "the key is unknown or was revoked; hearth keys list shows the valid ones",
    "wrong": "the key is unknown or was revoked; hearth keys list shows the valid ones",
    "expired": "the key has expired; hearth keys create makes a new one",
}
"""Faults of a credential, with the detail for its sender. It does not tell how much of the credential was right."""
REASONS = (*FAULTS, "scope", "rate", "concurrency")
"""Reasons for a refusal, as the metric calls them."""


EVERYTHING, NOTHING = "everything", "nothing"
"""Values of `Admission.sight` beside scopes. No scope has such a name."""


class Admission:
    """The rights of one caller whose request is admitted. This class: of everybody, on a gateway without keys."""

    __slots__ = ()

    @property
    def caller(self) -> str:
        """Return the id of the caller's key, which tells callers apart, or "" if there are no keys."""
        return ""

    @property
    def key_name(self) -> str | None:
        """Return the name of the caller's key, or None if there are no keys."""
        return None

    def ended(self) -> None:
        """Count the end of an invocation. Call it once for each one that was admitted, however it ends."""

    def may_name(self, function: str) -> bool:
        """Return whether the caller may learn that this function exists."""
        return True

    @property
    def sight(self) -> str:
        """Return a text that is equal for callers who may name the same functions."""
        return EVERYTHING

    @property
    def sees_all(self) -> bool:
        """Return whether the caller may learn of every function, so that `may_name` need not be asked for each."""
        return self.sight is EVERYTHING

    def may_invoke(self, function: str) -> bool:
        """Return whether the caller may call this function, and so decide about calls of it."""
        return True

    def may_invoke_any(self, functions: Iterable[str]) -> bool:
        """Return whether the caller may call one of these functions, or every function."""
        return True

    @property
    def may_deploy(self) -> bool:
        """Return whether the caller may run images that nobody has declared."""
        return True

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Count a body that is on its way while the block runs. The request must not be a call.

        Raises `Problem` 429 if as many bodies as the key's concurrency are on their way already.
        """
        yield


class Keyless(Admission):
    """The rights of a caller without a valid key, on a route that needs none."""

    __slots__ = ()

    def may_name(self, function: str) -> bool:
        """Return False: only callers with a key learn which functions exist."""
        return False

    @property
    def sight(self) -> str:
        return NOTHING

    @property
    def may_deploy(self) -> bool:
        return False


class KeyHolder(Admission):
    """The rights of a key, and its use at this moment."""

    __slots__ = ("_sending", "bucket", "key", "running")

    def __init__(self, key: Key, now: float) -> None:
        self.key = key
        self.running = 0
        """Invocations that run or wait."""
        self._sending = 0
        """Bodies on their way, of requests that are not calls."""
        self.bucket = key.quota.bucket(now)

    @property
    def caller(self) -> str:
        return self.key.id

    @property
    def key_name(self) -> str | None:
        return self.key.name

    def ended(self) -> None:
        """Count the end of one of its invocations."""
        self.running -= 1

    def may_name(self, function: str) -> bool:
        """Return whether the key may invoke the function, or may read."""
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
            raise Problem("quota-exceeded", detail, CONCURRENCY_RETRY_SECONDS)
        self._sending += 1
        try:
            yield
        finally:
            self._sending -= 1


OPEN, KEYLESS = Admission(), Keyless()
ADMISSION = "hearth.admission"
"""Key of a call's scope that holds its admission."""
CURRENT: ContextVar[Admission] = ContextVar("admission", default=OPEN)
"""The admission of the request that a route is answering."""


def check_may_start_any(names: Iterable[str]) -> None:
    """Raise `Problem` 403 unless the caller may start one of these functions and jobs, or may deploy.

    Call it before reading the body that says which one is to be started.
    """
    admission = CURRENT.get()
    if not admission.may_deploy and not admission.may_invoke_any(names):
        raise Problem("forbidden", "the key may invoke no function or job here: the request starts nothing")


class Access:
    """The keys of one gateway, and the check of each request against them.

    `configured` are the keys of HEARTH_API_KEYS. The keys of `file` come beside them and follow its changes. If there
    is no key at all, everybody is admitted, or nobody if `closed`. Raises `KeyFileFault`.
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
        self._holders: dict[bytes, KeyHolder] | None = {} if closed else None
        """Keys by their id; None if there has been no key, so that everybody is admitted."""
        keys = file.load() if file else []
        if closed or keys or configured:
            self._take_over(keys)

    @property
    def keys(self) -> int | None:
        """Return the number of keys, or None if there has been no key, so that everybody is admitted."""
        return None if self._holders is None else len(self._holders)

    @property
    def closed(self) -> bool:
        """Return whether a request needs a key."""
        return self._holders is not None

    # -- the check ------------------------------------------------------------------------------------------

    def admit_call(self, headers: HeaderList, raw_path: bytes) -> Admission | Problem:
        """Return an admission for an invocation, or the problem that refuses it.

        `raw_path` is `/invoke/NAME` or longer, as it was sent. The credential is taken out of `headers`. The caller
        must call the admission's `ended` once.
        """
        if self._holders is None:
            return OPEN
        holder = self._identify(headers)
        if isinstance(holder, Problem):
            return holder
        function = raw_path.split(b"/", 3)[2].decode("latin-1")
        if not holder.key.scopes.may_invoke(function):
            return self._not_allowed(holder, f"invoke:{function}", f"invoke {function!r}")
        limit = holder.key.quota.concurrency
        if limit is not None and holder.running >= limit:
            detail = f"the key {holder.key.name} has {limit} calls in progress (its concurrency); wait for one to end"
            return self._refused("concurrency", Problem("quota-exceeded", detail, CONCURRENCY_RETRY_SECONDS))
        fault = self._over_rate(holder)
        if fault is not None:
            return fault
        holder.running += 1
        return holder

    def would_admit(self, headers: HeaderList, raw_path: bytes) -> bool:
        """Return whether `admit_call` would admit this call by its key, its scopes and its concurrency.

        The rate is not looked at, and nothing is counted.
        """
        if self._holders is None:
            return True
        holder = self._find(take_credential(headers.copy()))
        if not isinstance(holder, KeyHolder):
            return False
        limit = holder.key.quota.concurrency
        function = raw_path.split(b"/", 3)[2].decode("latin-1")
        return holder.key.scopes.may_invoke(function) and (limit is None or holder.running < limit)

    def admit_request(self, headers: HeaderList, method: str, path: str) -> Admission | Problem:
        """Return an admission for a request that is not an invocation, or the problem that refuses it.

        The credential is taken out of `headers`.
        """
        if self._holders is None:
            return OPEN
        right = right_for(method, path)
        if right is None:
            visitor = self._find(take_credential(headers))
            return visitor if isinstance(visitor, KeyHolder) else KEYLESS
        holder = self._identify(headers)
        if isinstance(holder, Problem):
            return holder
        if right != "invoke" and not holder.key.scopes.has(right):
            return self._not_allowed(holder, right, f"{method} {path}")
        return self._over_rate(holder) or holder

    def still_admits(self, admission: Admission) -> bool:
        """Return whether a caller who was admitted a while ago, and still gets an answer, has a valid key now."""
        if self._holders is None or not isinstance(admission, KeyHolder):
            return self._holders is None
        key = admission.key
        valid = key.expires is None or self._clock.wall() < key.expires
        return valid and self._holders.get(key.id.encode()) is admission

    def charge(self, admission: Admission, more: int) -> Problem | None:
        """Count `more` further requests that one request carries, against the caller's rate.

        They may be more than the key has left. Then the next request of the key is refused until they are made up
        for. Return a problem if this is so already.
        """
        if more == 0 or not isinstance(admission, KeyHolder) or admission.bucket is None:
            return None
        wait = admission.bucket.owe(more, self._clock.now())
        return None if wait == 0.0 else self._used_up(admission, wait)

    def give_back(self, admission: Admission, more: int) -> None:
        """Take back what `charge` counted, because none of it was done."""
        if isinstance(admission, KeyHolder) and admission.bucket is not None:
            admission.bucket.give_back(more, self._clock.now())

    def _find(self, credential: bytes | None) -> KeyHolder | Fault:
        """Return the owner of a credential, or its fault."""
        if credential is None:
            return "missing"
        if len(credential) != LENGTH or not credential.startswith(b"hth_"):
            return "malformed"
        holder = (self._holders or {}).get(credential[4:12])
        if holder is None:
            return "unknown"
        key = holder.key
        if not key.is_of(credential):
            return "wrong"
        if key.expires is not None and self._clock.wall() >= key.expires:
            return "expired"
        return holder

    def _identify(self, headers: HeaderList) -> KeyHolder | Problem:
        found = self._find(take_credential(headers))
        if isinstance(found, KeyHolder):
            return found
        challenge = b'Bearer realm="hearth"' + (b"" if found == "missing" else b', error="invalid_token"')
        problem = Problem("unauthorized", FAULTS[found], headers=((b"www-authenticate", challenge),))
        return self._refused(found, problem)

    def _not_allowed(self, holder: KeyHolder, scope: str, deed: str) -> Problem:
        words = ", ".join(holder.key.scopes.words)
        detail = f"the key {holder.key.name} may not {deed}: this needs {scope}, and the key has {words}"
        challenge = b'Bearer realm="hearth", error="insufficient_scope"'
        return self._refused(
            "scope", Problem("forbidden", detail, headers=((b"www-authenticate", challenge),))
        )

    def _over_rate(self, holder: KeyHolder) -> Problem | None:
        bucket = holder.bucket
        if bucket is None or (wait := bucket.take(self._clock.now())) == 0.0:
            return None
        return self._used_up(holder, wait)

    def _used_up(self, holder: KeyHolder, wait: float) -> Problem:
        detail = f"the key {holder.key.name} has used up its rate, {holder.key.quota.rate}; try again later"
        return self._refused("rate", Problem("quota-exceeded", detail, wait))

    def _refused(self, reason: str, problem: Problem) -> Problem:
        self._refusals[reason].value += 1
        return problem

    # -- changes --------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Take over every change of the key file, until cancelled. A faulty file is logged and changes nothing."""
        while self._file is not None:
            await self._clock.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Take over the key file if it has changed."""
        if self._file is None or (signature := self._file.signature()) == self._seen:
            return
        self._seen = signature
        try:
            keys = self._file.load()
        except KeyFileFault as error:
            log.error("%s. The earlier keys stay valid.", error)
            return
        if not keys and signature is None and not self.closed:
            return
        self._take_over(keys)
        log.info("The keys have changed; %d are valid now", self.keys or 0)

    def _take_over(self, from_file: Sequence[Key]) -> None:
        """Know these keys and no others, and admit nobody without one from now on.

        A file that is written without any key closes the gateway as well: there was one, if only for a moment.
        """
        keys = {key.id.encode(): key for key in (*from_file, *self._configured)}
        before, now = self._holders or {}, self._clock.now()
        holders: dict[bytes, KeyHolder] = {}
        for id, key in keys.items():
            holder = before.get(id)
            if holder is None:
                holder = KeyHolder(key, now)
            elif holder.key != key:  # its running calls stay counted
                if holder.key.quota != key.quota:
                    holder.bucket = key.quota.bucket(now)
                holder.key = key
            holders[id] = holder
        self._holders = holders
