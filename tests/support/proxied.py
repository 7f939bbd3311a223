"""A registry behind a real nginx."""

from __future__ import annotations

import shutil
import ssl

from tests.support.nginx import PROXY, Nginx, replaced, start_nginx, with_accel, write_certificate
from tests.support.programs import require
from tests.support.registries import ProgramTestCase
from tests.support.server import USER, Client, free_port

TRUST = ("--trusted-proxies", "127.0.0.1")


class ProxyTestCase(ProgramTestCase):
    """A server and an nginx at 127.0.0.1 with the configuration of the manual, which terminates TLS in front of the
    public and the auth port.
    """

    flags: tuple[str, ...] = TRUST
    nginx: Nginx
    addresses: dict[str, tuple[str, int]]
    context: ssl.SSLContext

    @classmethod
    def setUpClass(cls) -> None:
        """Start both."""
        require("nginx", "nginx-light")
        super().setUpClass()
        ports = {name: free_port() for name in ("public", "auth")}
        cls.addresses = {name: ("127.0.0.1", port) for name, port in ports.items()}
        values = write_certificate(cls.directory, "127.0.0.1")
        for name, default, shown in (("public", 8200, 443), ("auth", 8201, 8443)):
            values[f"127.0.0.1:{default}"] = "{}:{}".format(*cls.server.addresses[name])
            values[f"listen {shown} ssl"] = f"listen 127.0.0.1:{ports[name]} ssl"
            values[str(shown)] = ports[name]
        cls.nginx = start_nginx(cls.directory / "nginx", cls.block(replaced(PROXY, values)))
        cls.addClassCleanup(cls.nginx.stop)
        cls.context = ssl.create_default_context(cafile=str(cls.directory / "crt.pem"))
        shutil.copy(cls.directory / "crt.pem", cls.directory / "certificates" / "ca.crt")

    @classmethod
    def block(cls, block: str) -> str:
        """Make the configuration of nginx from that of the manual."""
        return block

    @property
    def public(self) -> Client:
        """A client of the public port of nginx."""
        return Client(self.addresses["public"], context=self.context)

    @property
    def auth(self) -> Client:
        """A client of the auth port of nginx."""
        return Client(self.addresses["auth"], USER, context=self.context)


class AcceleratedTestCase(ProxyTestCase):
    """With `accel-redirect`: nginx reads the files."""

    flags = (*TRUST, "--accel-redirect", "/blobs/")

    @classmethod
    def block(cls, block: str) -> str:
        """Add the location."""
        return with_accel(block).replace("/srv/registry/data", str(cls.server.data))
