"""The HTTP client of callbacks. It brings httpx along, which imports a hundred modules, for terminals as well."""

from __future__ import annotations

from collections.abc import Mapping

import httpx


class CallbackClient:
    """A client that follows no redirect, uses no proxy and keeps no connection."""

    def __init__(self, timeout: float) -> None:
        context = httpx.create_ssl_context(trust_env=False)
        context.load_default_certs()
        self._client = httpx.AsyncClient(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            timeout=timeout,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def post(
        self, url: str, address: str, headers: Mapping[str, str], body: bytes, name: str | None
    ) -> int | str:
        """Send a body to the address that a URL's host was found at, and return the answer's status, or the fault.

        `name` is the name that the certificate must have, or None if the host is an address or there is no TLS.
        """
        try:
            parsed = httpx.URL(url)
            request = self._client.build_request(
                "POST",
                parsed.copy_with(host=address),
                headers={"host": parsed.netloc.decode("ascii"), **headers},
                content=body,
                extensions={"sni_hostname": name} if name else {},
            )
            response = await self._client.send(request, stream=True)
            await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return response.status_code

    async def close(self) -> None:
        """Close it."""
        await self._client.aclose()
