"""`vex quickstart`: sets up a registry in the current directory, and prints what to do next.

Nothing is overwritten: if any file that it would write is there, it writes none. Every command that it prints can be pasted.
"""

from __future__ import annotations

import getpass
import ipaddress
import os
import shlex
import string
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Callable

from vex.blobs import FILE_MODE
from vex.certificate import canonical_host, create_certificate
from vex.database import Database
from vex.directory import open_data
from vex.errors import Failure
from vex.users import Users, check_user

PUBLIC_PORT, AUTH_PORT, INTERNAL_PORT = 8200, 8201, 8202
_KEY_MODE = 0o600
# What ProtectHome=yes hides: systemd.exec(5)
_HOMES = ("/home/", "/root/", "/run/user/")

_CONFIGURATION = string.Template("""\
# Configuration of Vex; `$vex describe` shows every key with its meaning and default.
public-addr = $host:$public
public-tls-cert = $certificate
public-tls-key = $key
auth-addr = $host:$auth
auth-tls-cert = $certificate
auth-tls-key = $key
internal-addr = localhost:$internal
data-dir = $data
""")

_SERVICE = string.Template("""\
[Unit]
Description=Vex container registry
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
User=$user
WorkingDirectory=$directory
ExecStart=$exec serve --config $config
ExecReload=kill -HUP $$MAINPID
Restart=on-failure
RestartSec=5
WatchdogSec=2min
TimeoutStartSec=infinity
TimeoutStopSec=45
LimitNOFILE=65536
UMask=0027
RuntimeDirectory=vex
LogsDirectory=vex
ReadWritePaths=$data
ProtectSystem=strict
ProtectHome=$home
PrivateTmp=yes
PrivateDevices=yes
PrivateIPC=yes
PrivateMounts=yes
PrivateUsers=yes
DevicePolicy=closed
ProtectHostname=yes
ProtectClock=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectProc=invisible
ProcSubset=pid
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
""")

_NEXT_STEPS = string.Template("""\
Set up in $directory:
  $written

Start the registry:
  $vex serve --config $config

Or have systemd run it, now and after each start of this machine:
  sudo cp $service /etc/systemd/system/vex.service
  sudo systemctl daemon-reload
  sudo systemctl enable --now vex

Make docker trust the certificate. On other machines, copy $certificate there first; they must know $name as a name of this machine:
  sudo mkdir -p /etc/docker/certs.d/$name:$public /etc/docker/certs.d/$name:$auth
  sudo cp $certificate /etc/docker/certs.d/$name:$public/ca.crt
  sudo cp $certificate /etc/docker/certs.d/$name:$auth/ca.crt

Make podman, buildah and skopeo trust it:
  sudo mkdir -p /etc/containers/certs.d/$name:$public /etc/containers/certs.d/$name:$auth
  sudo cp $certificate /etc/containers/certs.d/$name:$public/ca.crt
  sudo cp $certificate /etc/containers/certs.d/$name:$auth/ca.crt

Log in, push a small image, and pull it, as anyone can:
  docker login --username $username $name:$auth
  tar -cC $directory vex.conf | docker import - $name:$auth/hello:v1
  docker push $name:$auth/hello:v1
  docker pull $name:$public/hello:v1

The same with podman:
  podman login --username $username $name:$auth
  tar -cC $directory vex.conf | podman import - $name:$auth/hello:v2
  podman push $name:$auth/hello:v2
  podman pull $name:$public/hello:v2

Look at it:
  curl --cacert $certificate https://$name:$public/v2/_catalog
""")


def quickstart(username: str, hostname: str, read_password: Callable[[], str]) -> int:
    """Set up a registry in the current directory; returns the exit code. Raises Failure."""
    check_user(username)
    directory = Path.cwd()
    data = directory / "data"
    # What is checked here names files, too: it holds no path separator.
    hostname = canonical_host(hostname)
    made = create_certificate(hostname, now=time.time())
    certificate, key = f"{hostname}.crt.pem", f"{hostname}.key.pem"
    name = f"[{hostname}]" if ":" in hostname else hostname
    values = {
        "host": name if _is_loopback(hostname) else "",
        "name": name,
        "username": username,
        "vex": _shell(sys.executable, os.path.abspath(sys.argv[0])),
        "exec": _unit(sys.executable, os.path.abspath(sys.argv[0])),
        "public": str(PUBLIC_PORT),
        "auth": str(AUTH_PORT),
        "internal": str(INTERNAL_PORT),
    }
    settings = {**values, "certificate": certificate, "key": key, "data": "data"}
    unit = {**values, "user": getpass.getuser(), "directory": _unit(str(directory)), "config": _unit(str(directory / "vex.conf")), "data": _unit(str(data))}
    unit["home"] = _home(directory)
    files = {
        "vex.conf": (_CONFIGURATION.substitute(settings), FILE_MODE),
        "vex.service": (_SERVICE.substitute(unit), FILE_MODE),
        certificate: (made.certificate_pem, FILE_MODE),
        key: (made.key_pem, _KEY_MODE),
    }
    _refuse_existing([*files, "data/vex.db"])
    with open_data(data):
        database = Database(data / "vex.db")
        try:
            Users(database).add(username, read_password())
        except Failure:
            _remove_database(data, database)
            raise
        database.close()
        for name, (text, mode) in files.items():
            _write(directory / name, text, mode)
    print(_next_steps(directory, files, values, certificate), end="")
    return 0


def _next_steps(directory: Path, files: Mapping[str, object], values: Mapping[str, str], certificate: str) -> str:
    paths = {name: _shell(str(directory / path)) for name, path in (("config", "vex.conf"), ("service", "vex.service"), ("certificate", certificate))}
    written = "  ".join([*files, "data/vex.db"])
    return _NEXT_STEPS.substitute({**values, **paths, "directory": _shell(str(directory)), "written": written})


def _refuse_existing(names: list[str]) -> None:
    existing = [name for name in names if os.path.lexists(name)]
    if existing:
        raise Failure(f"{', '.join(existing)}: already here, and nothing is overwritten; use another directory, or move that away")


def _remove_database(data: Path, database: Database) -> None:
    """Take back the new database, so that a second try finds nothing in its way."""
    database.close()
    for path in data.glob("vex.db*"):
        path.unlink()


def _write(path: Path, text: str, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w", encoding="utf-8") as file:
        file.write(text)


def _is_loopback(hostname: str) -> bool:
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return hostname == "localhost"


def _home(directory: Path) -> str:
    """Tell what the service needs of home directories: nothing, unless the registry or a part of Python is in one."""
    needed = (directory, os.path.abspath(sys.argv[0]), sys.executable, sys.prefix, sys.base_prefix)
    return "read-only" if any(str(os.path.realpath(path)).startswith(_HOMES) for path in needed) else "yes"


def _shell(*words: str) -> str:
    return " ".join(map(shlex.quote, words))


def _unit(*words: str) -> str:
    """Quote words as systemd reads them: C escapes in double quotes, % and $ doubled."""
    escaped = (word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$") for word in words)
    return " ".join(f'"{word}"' if " " in word else word for word in escaped)
