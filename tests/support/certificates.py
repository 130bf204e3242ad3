"""Certificates of a small authority, made with openssl: for an engine, and for its clients."""

from __future__ import annotations

import subprocess
from pathlib import Path

LONG_AGO = ("20200101000000Z", "20200102000000Z")


class Authority:
    """An authority with a key of its own. `folder` gets its ca.pem."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / "ca.pem"
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "ca-key.pem")
        self._run("req", "-x509", *key, "-out", "ca.pem", "-days", "10", "-subj", f"/CN={name}")

    def issue(self, folder: Path, usage: str, san: str = "DNS:nobody", expired: bool = False) -> Path:
        """Make cert.pem, key.pem and ca.pem in a folder; `usage` is serverAuth or clientAuth."""
        folder.mkdir(parents=True, exist_ok=True)
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        self._run("req", *key, "-keyout", f"{folder}/key.pem", "-out", "request.pem", "-subj", "/CN=test")
        (self.folder / "extensions").write_text(f"extendedKeyUsage={usage}\nsubjectAltName={san}\n")
        (self.folder / "index").write_text("")
        (self.folder / "serial").write_text("%02x\n" % (int.from_bytes(folder.name.encode()[:4]) | 1))
        (self.folder / "config").write_text(
            "[ca]\ndefault_ca=own\n[own]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\n"
            "policy=any\nunique_subject=no\n[any]\ncommonName=supplied\n"
        )
        dates = ("-startdate", LONG_AGO[0], "-enddate", LONG_AGO[1]) if expired else ("-days", "5")
        self._run(
            *(
                "ca",
                "-batch",
                "-config",
                "config",
                "-in",
                "request.pem",
                "-out",
                f"{folder}/cert.pem",
                "-notext",
            ),
            *("-cert", "ca.pem", "-keyfile", "ca-key.pem", "-extfile", "extensions", *dates),
        )
        (folder / "ca.pem").write_bytes(self.ca.read_bytes())
        return folder

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)
