"""Pushing through proxies with the shortest configuration that they have, which say nothing to Vex and whom nobody told
it of.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import unittest
from pathlib import Path

from tests.support.images import SINGLE, Layout, write_layout
from tests.support.programs import require
from tests.support.registries import run, temporary_directory
from tests.support.server import PASSWORD, USER, Client, Server, free_port

_NGINX = """\
daemon off; worker_processes 1; {user} pid {directory}/pid; error_log {directory}/log; events {{}}
http {{
    access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
    server {{ listen 127.0.0.1:{port}; client_max_body_size 0; location / {{ proxy_pass http://127.0.0.1:{vex}; }} }}
}}
"""
_HAPROXY = """\
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen vex
    bind 127.0.0.1:{port}
    server vex 127.0.0.1:{vex}
"""
_CADDY = """\
{{
    admin off
}}
http://127.0.0.1:{port} {{
    reverse_proxy 127.0.0.1:{vex}
}}
"""
_APACHE = """\
ServerName localhost
ServerRoot {directory}
PidFile {directory}/pid
ErrorLog {directory}/log
Listen 127.0.0.1:{port}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
ProxyPass / http://127.0.0.1:{vex}/
ProxyPassReverse / http://127.0.0.1:{vex}/
"""


class PlainProxies(unittest.TestCase):
    """One server, and an image to push."""

    server: Server
    directory: Path
    layout: Layout

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server."""
        require("skopeo", "skopeo")
        directory = temporary_directory()
        cls.directory = directory.__enter__()
        cls.addClassCleanup(directory.__exit__, None, None, None)
        cls.server = Server(cls.directory)
        cls.addClassCleanup(cls.server.kill)
        cls.layout = write_layout(cls.directory / "layout")

    def check(self, name: str, configuration: str, *command: str) -> None:
        """Run a proxy in front of the auth listener, and push through it; words of the command are formatted as the
        configuration is.
        """
        directory, port = self.directory / name, free_port()
        directory.mkdir()
        user = "user root;" if os.geteuid() == 0 else ""
        words = {"directory": directory, "port": port, "vex": self.server.addresses["auth"][1], "user": user}
        (directory / "conf").write_text(configuration.format(**words))
        environment = {
            **os.environ,
            "HOME": str(directory),
            "XDG_DATA_HOME": str(directory),
            "XDG_CONFIG_HOME": str(directory),
        }
        with open(directory / "output", "wb") as output:
            proxy = subprocess.Popen(
                [word.format(**words) for word in command], stdout=output, stderr=output, env=environment
            )
        self.addCleanup(proxy.wait, 60)
        self.addCleanup(proxy.terminate)
        self.wait_for(port, proxy, directory)
        answer = Client(("127.0.0.1", port), USER).request("POST", f"/v2/{name}/blobs/uploads/")
        # The proxy may have made it absolute, and then with its own address.
        self.assertRegex(answer.headers["Location"], rf"^(http://127\.0\.0\.1:{port})?/v2/{name}/blobs/uploads/")
        self.push(f"127.0.0.1:{port}/{name}:v1")
        self.assertEqual(self.server.public.get(f"/v2/{name}/manifests/v1").status, 200)

    def push(self, image: str) -> None:
        source = f"oci:{self.layout.directory}:{SINGLE}"
        run(
            require("skopeo", "skopeo"),
            "copy",
            "--dest-tls-verify=false",
            "--dest-creds",
            f"{USER}:{PASSWORD}",
            source,
            f"docker://{image}",
        )

    def wait_for(self, port: int, proxy: subprocess.Popen[bytes], directory: Path) -> None:
        deadline = time.monotonic() + 30
        while not self.listens(port):
            assert proxy.poll() is None and time.monotonic() < deadline, (directory / "output").read_text()
            time.sleep(0.02)

    @staticmethod
    def listens(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def test_nginx(self) -> None:
        self.check(
            "nginx",
            _NGINX,
            require("nginx", "nginx-light"),
            "-p",
            "{directory}",
            "-e",
            "{directory}/log",
            "-c",
            "{directory}/conf",
        )

    def test_haproxy(self) -> None:
        self.check("haproxy", _HAPROXY, require("haproxy", "haproxy"), "-f", "{directory}/conf")

    def test_caddy(self) -> None:
        self.check(
            "caddy", _CADDY, require("caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", "{directory}/conf"
        )

    def test_apache(self) -> None:
        self.check("apache", _APACHE, require("apache2", "apache2"), "-D", "FOREGROUND", "-f", "{directory}/conf")

    def test_varnish(self) -> None:
        arguments = [
            "-F",
            "-n",
            "{directory}/varnish",
            "-a",
            "127.0.0.1:{port}",
            "-b",
            "127.0.0.1:{vex}",
            "-s",
            "malloc,16m",
        ]
        self.check("varnish", "", require("varnishd", "varnish"), *arguments)


if __name__ == "__main__":
    unittest.main()
