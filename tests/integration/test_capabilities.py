"""nginx as Debian packages it: it starts as root, chowns its folders and changes to a user of its own."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import BASE_IMAGE, EngineView, Gateway

from pool.engine.docker import DockerEngine
from pool.observe.metrics import Metrics

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
user www-data;
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
    access_log off;
    server { listen 80; root /srv/site; }
}
"""
DOCKERFILE = f"""
FROM {BASE_IMAGE}
COPY nginx /usr/sbin/nginx
COPY lib /opt/lib
COPY nginx.conf /etc/nginx/nginx.conf
RUN chmod 755 /usr/sbin/nginx && mkdir -p /var/lib/nginx /var/log/nginx /srv/site \\
    && echo 'www-data:x:33:33::/srv:/bin/sh' >> /etc/passwd && echo 'www-data:x:33:' >> /etc/group \\
    && echo page of its user > /srv/site/page && chmod 400 /srv/site/page && chown -R 33:33 /srv/site
ENV LD_LIBRARY_PATH=/opt/lib
CMD ["nginx", "-g", "daemon off;"]
"""
NEEDED = "chown,setgid,setuid"


@pytest.fixture(scope="module")
def image(tar_of: Callable[[dict[str, bytes]], bytes], test_label: dict[str, str]) -> Iterator[str]:
    """An image with this machine's nginx, which `make bench` installs too."""
    subprocess.run(["sh", str(ROOT / "bench/tools.sh")], check=True, timeout=300)
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert program is not None
    needs = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    libraries = [Path(found) for found in re.findall(r"=> (/\S+)", needs) if "/libc.so" not in found]
    files = {
        "Dockerfile": DOCKERFILE.encode(),
        "nginx": Path(program).read_bytes(),
        "nginx.conf": CONFIG.encode(),
        **{f"lib/{library.name}": library.read_bytes() for library in libraries},
    }
    [label] = test_label
    session = uuid.uuid4().hex
    tag = f"hearth-test/nginx:{session}"

    async def build() -> None:
        engine = DockerEngine(None, Metrics())
        try:
            await engine.build(tar_of(files), tag, {label: session})
        finally:
            await engine.close()

    try:
        asyncio.run(build())
        yield tag
    finally:
        EngineView().remove_all(f"{label}={session}")


def test_nginx_says_which_right_it_lacks_and_serves_with_it(tmp_path: Path, image: str) -> None:
    served: dict[str, object] = {
        "image": image,
        "port": 80,
        "user": "image",
        "writable": {"/var/lib/nginx": "1MiB"},
        "freeze_after": "never",
    }
    functions = {
        "refused": served,
        "served": {**served, "capabilities": NEEDED.split(",")},
        "half": {**served, "capabilities": ["chown"], "health": "/page"},
    }
    settings = {"allowed_capabilities": NEEDED, "start_timeout": "5s"}
    with Gateway(tmp_path, functions, settings=settings) as gateway:
        problem = gateway.http.get("/invoke/refused/page").json()
        # It may have listened before it ended.
        assert problem["type"].rpartition(":")[2] in ("function-failed", "instance-died")
        assert (
            "it lacks the capability chown, so write `user: image` and `capabilities: [" in problem["detail"]
        )
        assert f"set HEARTH_ALLOWED_CAPABILITIES={NEEDED}" in problem["detail"]
        answer = gateway.http.get("/invoke/served/page")
        # Only www-data may read the page: root without capabilities cannot.
        assert answer.text == "page of its user\n"
        assert "it lacks the capability setgid" in gateway.http.get("/invoke/half/page").json()["detail"]
