"""Methods and paths that a caller may use with a function."""

from __future__ import annotations

from gateway.http.problems import Problem
from pool.contracts.facts import ContractFacts


def check_method(contract: ContractFacts, name: str, method: str, sub_path: bytes) -> None:
    """Raise `Problem` unless a function's contract allows this method with this path below its name."""
    if contract.allows(method, sub_path):
        return
    methods = sorted(contract.methods or ())
    if sub_path and not contract.sub_paths:
        usage = f"{methods[0]} /invoke/{name}" if methods else f"/invoke/{name}"
        detail, allowed = f"{name} takes no sub-path: {usage}", b""
    else:
        detail, allowed = f"{name} answers {', '.join(methods)} only", ", ".join(methods).encode()
    raise Problem("method-not-allowed", detail, headers=((b"allow", allowed),))
