"""`vex quickstart` and `vex certificate`: what they write and how, what is left when they do not end, and that clients
go on trusting what is renewed.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tests.support.programs import require, require_client
from tests.support.registries import require_root, temporary_directory
from tests.support.server import PASSWORD, TOP, USER, Client, Server, vex

FILES = {"vex.conf", "vex.service", "ca.crt.pem", "ca.key.pem", "localhost.crt.pem", "localhost.key.pem", "data"}
NO_PROXY = {"NO_PROXY": "*", "no_proxy": "*"}


class QuickstartCase(unittest.TestCase):
    """Registries that are set up in a directory of the test."""

    def setUp(self) -> None:
        context = temporary_directory()
        self.addCleanup(context.__exit__, None, None, None)
        self.directory = context.__enter__()

    def run_vex(self, *arguments: str, code: int = 0, cwd: Path | None = None) -> str:
        """Run a command; returns what it printed, or what it complained of."""
        ended = vex(*arguments, cwd=cwd or self.directory, text=PASSWORD + "\n")
        self.assertEqual(ended.returncode, code, ended.stderr)
        self.assertNotIn("Traceback", ended.stderr)
        return ended.stderr if code else ended.stdout

    def serve(self) -> Server:
        """Run the registry that is set up."""
        server = Server(self.directory, "--config", str(self.directory / "vex.conf"))
        self.addCleanup(server.kill)
        return server


class Files(QuickstartCase):
    """What is written."""

    def test_certificates_can_be_read_by_all_and_keys_by_their_owner_alone_whatever_the_umask(self) -> None:
        for umask in (0o022, 0o077, 0o000):
            with self.subTest(umask), tempfile.TemporaryDirectory() as directory:
                before = os.umask(umask)
                try:
                    self.run_vex("quickstart", USER, cwd=Path(directory))
                finally:
                    os.umask(before)
                self.assertEqual({path.name for path in Path(directory).iterdir()}, FILES)
                modes = {path.name: path.stat().st_mode & 0o777 for path in Path(directory).glob("*.pem")}
                expected = {name: 0o644 if ".crt." in name else 0o600 for name in FILES if name.endswith(".pem")}
                self.assertEqual(modes, expected)

    def test_a_host_that_is_called_as_the_authority_is_gets_files_of_its_own(self) -> None:
        self.run_vex("quickstart", USER, "ca")
        self.assertTrue((self.directory / "ca.server.crt.pem").exists())
        self.assertIn("public-tls-cert = ca.server.crt.pem\n", (self.directory / "vex.conf").read_text())
        self.run_vex("certificate", "renew")

    def test_user_names_that_programs_would_take_for_options_are_refused(self) -> None:
        for name in ("-u", "--help", ".a", "a b"):
            self.assertIn("is not a user name", self.run_vex("quickstart", "--", name, code=1))
        self.assertEqual(list(self.directory.iterdir()), [])


class Ends(QuickstartCase):
    """What is left when it does not come to its end."""

    def interrupted(self, number: int) -> int:
        """Run it on a terminal, and end it where it asks for the password; returns its exit code."""
        master, slave = pty.openpty()
        command = [sys.executable, str(TOP / "vex.py"), "quickstart", USER]
        process = subprocess.Popen(
            command, cwd=self.directory, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        shown = b""
        while b"Password: " not in shown:
            shown += os.read(master, 1024)
        self.assertEqual(list(self.directory.iterdir()), [], "nothing is made before the password is known")
        process.send_signal(number)
        with contextlib.suppress(OSError):
            while os.read(master, 1024):
                pass
        os.close(master)
        return process.wait(timeout=60)

    def test_ended_at_the_prompt_it_leaves_nothing(self) -> None:
        # Whoever runs the tests may ignore it, as a shell has those do that it runs in the background; the program
        # would inherit that.
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        for number, code in ((signal.SIGINT, 1), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)):
            with self.subTest(number):
                self.assertEqual(self.interrupted(number), code)
                self.assertEqual(list(self.directory.iterdir()), [])
        self.run_vex("quickstart", USER)

    def test_a_password_that_is_refused_leaves_nothing(self) -> None:
        ended = vex("quickstart", USER, cwd=self.directory, text="short\n")
        self.assertEqual((ended.returncode, list(self.directory.iterdir())), (1, []))

    def test_a_file_that_cannot_be_written_leaves_nothing(self) -> None:
        script = "trap '' XFSZ; ulimit -f 1; exec \"$@\""
        # The database has more than the blocks of 512 or 1,024 bytes that files may have here.
        command = ["sh", "-c", script, "sh", sys.executable, str(TOP / "vex.py"), "quickstart", USER]
        ended = subprocess.run(
            command,
            cwd=self.directory,
            input=PASSWORD + "\n",
            # Python would leave modules that it compiled cut off as well, for all that use them later.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((ended.returncode, list(self.directory.iterdir())), (1, []), ended.stderr)
        self.assertNotIn("Traceback", ended.stderr)

    def test_a_data_directory_that_was_there_stays(self) -> None:
        (self.directory / "data").mkdir()
        (self.directory / "data" / "mine").write_text("x")
        # A user of that name cannot be added, which comes out late.
        ended = vex("quickstart", USER, cwd=self.directory, text="short\n")
        self.assertEqual(ended.returncode, 1)
        self.assertEqual([path.name for path in (self.directory / "data").iterdir()], ["mine"])


class Units(QuickstartCase):
    """Directories and programs with names that mean something to systemd: its own programs read the unit."""

    NAMES = ("a b'c\"d$e%f\\g #h;i ", "${HOME} $x %n", "\u00fc \u65e5\u672c\\", "-plain")

    def test_what_systemd_reads_is_what_was_meant(self) -> None:
        require_root()
        analyze = require("systemd-analyze", "systemd")
        for name in self.NAMES:
            with self.subTest(name):
                directory = self.directory / name
                directory.mkdir()
                # The program is at such a place, too.
                for part in ("vex.py", "vex"):
                    (directory / part).symlink_to(TOP / part)
                command = [sys.executable, str(directory / "vex.py"), "quickstart", USER]
                subprocess.run(
                    command, cwd=directory, input=PASSWORD + "\n", capture_output=True, text=True, check=True
                )
                verified = subprocess.run(
                    [analyze, "verify", str(directory / "vex.service")], capture_output=True, text=True, check=False
                )
                self.assertEqual((verified.returncode, verified.stdout + verified.stderr), (0, ""))
                unit = self.read_by_systemd(directory / "vex.service")
                self.assertEqual(unit["WorkingDirectory"].rstrip("/"), str(directory))
                self.assertEqual(unit["ReadWritePaths"], str(directory / "data"))
                self.assertEqual(unit["InaccessiblePaths"], f"-{directory / 'ca.key.pem'}")
                expected = [sys.executable, str(directory / "vex.py"), "serve", "--config", str(directory / "vex.conf")]
                # It shows commands as a shell would take them.
                words = subprocess.run(
                    ["sh", "-c", f"printf '%s\\n' {unit['Command Line']}"], capture_output=True, text=True, check=True
                ).stdout
                self.assertEqual(words.splitlines(), expected)
                # systemd puts variables into commands only when it starts them, unless ":" says that there are none.
                self.assertEqual("\nExecStart=:" in (directory / "vex.service").read_text(), "$" in str(directory))

    def read_by_systemd(self, path: Path) -> dict[str, str]:
        """Have systemd load a unit, without starting anything, and tell what it read; it does that for others than
        root.
        """
        systemd = require("/lib/systemd/systemd", "systemd")
        with temporary_directory() as units:
            shutil.copy(path, units / "vex.service")
            units.chmod(0o755)
            (units / "vex.service").chmod(0o644)
            environment = {
                **os.environ,
                "SYSTEMD_UNIT_PATH": f"{units}:",
                "XDG_RUNTIME_DIR": "/nonexistent",
                "SYSTEMD_LOG_TARGET": "console",
            }
            others = [require("setpriv", "util-linux"), "--reuid=65534", "--regid=65534", "--clear-groups"]
            command = [*others, systemd, "--test", "--system", "--unit=vex.service"]
            dumped = subprocess.run(
                command, cwd="/", capture_output=True, text=True, timeout=60, check=False, env=environment
            )
        found = re.search(r"-> Unit vex\.service:\n(.*?)(?:-> Unit |\Z)", dumped.stdout, re.DOTALL)
        assert found, dumped.stderr
        settings: dict[str, str] = {}
        for line in found[1].splitlines():
            key, _, value = line.lstrip("\t").partition(": ")
            settings.setdefault(key, value)
        return settings

    def test_paths_that_no_unit_can_name_are_refused(self) -> None:
        for name in (
            b"line\nUser=root",
            b"bell\a",
            b"not utf-8 \xff",
            "next line \u0085".encode(),
            "separator \u2028".encode(),
        ):
            with self.subTest(name):
                directory = os.path.join(os.fsencode(self.directory), name)
                os.mkdir(directory)
                ended = subprocess.run(
                    [sys.executable, str(TOP / "vex.py"), "quickstart", USER],
                    cwd=directory,
                    input=PASSWORD + "\n",
                    capture_output=True,
                    text=True,
                    check=False,
                )
                self.assertEqual((ended.returncode, ended.stdout, ended.stderr.count("\n")), (1, "", 1))
                self.assertIn("another name", ended.stderr)
                self.assertEqual(os.listdir(directory), [])

    def test_what_the_unit_hides_is_not_where_the_registry_is(self) -> None:
        self.run_vex("quickstart", USER)
        self.assertTrue(str(self.directory).startswith("/tmp/"))
        self.assertIn("\nPrivateTmp=no\n", (self.directory / "vex.service").read_text())
        with tempfile.TemporaryDirectory(dir="/opt" if os.access("/opt", os.W_OK) else "/dev/shm") as elsewhere:
            self.run_vex("quickstart", USER, cwd=Path(elsewhere))
            in_tmp = any(
                os.path.realpath(path).startswith(("/tmp/", "/var/tmp/"))
                for path in (TOP, sys.executable, sys.prefix, sys.base_prefix)
            )
            self.assertIn(f"\nPrivateTmp={'no' if in_tmp else 'yes'}\n", (Path(elsewhere) / "vex.service").read_text())


class Renewal(QuickstartCase):
    """`vex certificate`."""

    def client(self, server: Server, trusted: str = "ca.crt.pem") -> Client:
        """Return a client that was set up with a file, and trusts nothing else, with the flags that Python 3.13
        sets.
        """
        context = ssl.create_default_context(cafile=str(self.directory / trusted))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return Client(("localhost", server.addresses["public"][1]), context=context)

    def reload(self, server: Server) -> None:
        """Have the server read its certificates again."""
        before = server.log.read_text()
        server.process.send_signal(signal.SIGHUP)
        while "auth: new connections get the new certificate" not in server.log.read_text()[len(before) :]:
            self.assertIsNone(server.process.poll())

    def test_clients_that_were_set_up_before_trust_the_new_certificate(self) -> None:
        self.run_vex("quickstart", USER)
        before = {path.name: path.read_text() for path in self.directory.glob("*.pem")}
        server = self.serve()
        client = self.client(server)
        self.assertEqual(client.get("/v2/").status, 200)
        self.assertIn("valid until 20", self.run_vex("certificate", "renew"))
        self.reload(server)
        self.assertEqual(client.get("/v2/").status, 200)
        self.assertEqual(self.uv("ca.crt.pem", server), "")
        changed = {name for name, text in before.items() if (self.directory / name).read_text() != text}
        self.assertEqual(changed, {"localhost.crt.pem"})
        self.assertEqual((self.directory / "localhost.crt.pem").stat().st_mode & 0o777, 0o644)
        self.assertNotIn("authority", server.log.read_text())

    def uv(self, trusted: str, server: Server) -> str:
        """Have uv, which is built on rustls, ask for what is not there; returns why it did not trust the server, "" if
        it did.
        """
        if os.environ.get("VEX_TEST_CLIENTS") is None and os.environ.get("VEX_TEST_REQUIRE") != "all":
            return ""
        environment = {**os.environ, **NO_PROXY, "SSL_CERT_FILE": str(self.directory / trusted), "UV_HTTP_RETRIES": "0"}
        environment["UV_CACHE_DIR"] = str(self.directory / "uv")
        environment.pop("SSL_CERT_DIR", None)
        index = f"https://localhost:{server.addresses['public'][1]}/simple"
        options = [
            "--no-config",
            "--python",
            sys.executable,
            "--target",
            str(self.directory / "target"),
            "--index-url",
            index,
        ]
        command = [require_client("bin/uv"), "pip", "install", *options, "nothing"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
        if "was not found in the package registry" in ended.stderr:
            return ""
        found = re.search(r"invalid peer certificate: (.*)", ended.stderr)
        assert found, ended.stderr
        return found[1]

    def test_one_that_is_its_own_authority_goes_on_is_named_and_is_replaced_in_two_steps(self) -> None:
        self.run_vex("quickstart", USER)
        self.make_as_before()
        server = self.serve()
        self.assertEqual(self.client(server, "localhost.crt.pem").get("/v2/").status, 200)
        [line] = [line for line in server.log.read_text().splitlines() if "localhost.crt.pem" in line]
        self.assertIn("vex certificate authority", line)
        self.assertIn(self.uv("localhost.crt.pem", server), ("", "Other(OtherError(CaUsedAsEndEntity))"))
        self.assertIn("begin with `vex certificate authority`", self.run_vex("certificate", "renew", code=1))
        certificate = (self.directory / "localhost.crt.pem").read_text()
        self.assertIn("nothing has changed", self.run_vex("certificate", "authority"))
        self.assertEqual((self.directory / "localhost.crt.pem").read_text(), certificate)
        self.assertEqual({(self.directory / name).stat().st_mode & 0o777 for name in ("ca.key.pem",)}, {0o600})
        # Clients are told to trust both for a while.
        (self.directory / "both.pem").write_text(certificate + (self.directory / "ca.crt.pem").read_text())
        client = self.client(server, "both.pem")
        self.assertEqual(client.get("/v2/").status, 200)
        self.run_vex("certificate", "renew")
        self.reload(server)
        self.assertEqual((client.get("/v2/").status, self.client(server).get("/v2/").status), (200, 200))
        self.assertEqual(self.uv("ca.crt.pem", server), "")

    def make_as_before(self) -> None:
        """Put a certificate in place that is its own authority, as `vex quickstart` made them once, and take the
        authority away.
        """
        openssl = require("openssl", "openssl")
        extensions = [
            "basicConstraints=critical,CA:TRUE,pathlen:0",
            "keyUsage=critical,digitalSignature,keyCertSign",
            "extendedKeyUsage=serverAuth",
        ]
        extensions.append("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1")
        added = [word for extension in extensions for word in ("-addext", extension)]
        key, certificate = self.directory / "localhost.key.pem", self.directory / "localhost.crt.pem"
        # Of the extensions, those of the default configuration would be there twice.
        configuration = self.directory / "openssl.conf"
        configuration.write_text("[req]\ndistinguished_name = name\n[name]\n")
        command = [
            openssl,
            "req",
            "-x509",
            "-config",
            str(configuration),
            "-key",
            str(key),
            "-subj",
            "/CN=localhost",
            "-days",
            "3650",
            *added,
        ]
        subprocess.run([*command, "-out", str(certificate)], check=True, capture_output=True)
        for name in ("ca.crt.pem", "ca.key.pem"):
            (self.directory / name).unlink()

    def test_what_cannot_be_done_is_said_and_changes_nothing(self) -> None:
        self.assertIn("no listener has a certificate", self.run_vex("certificate", "renew", code=1))
        self.run_vex("quickstart", USER)
        before = {path.name: path.read_text() for path in self.directory.glob("*.pem")}
        self.assertIn("ca.crt.pem is there already", self.run_vex("certificate", "authority", code=1))
        for name, content, words in (
            ("ca.key.pem", None, "bring it back"),
            ("ca.key.pem", "nonsense", "put back the files"),
            ("ca.key.pem", before["localhost.key.pem"], "not that of its certificate"),
            ("ca.crt.pem", None, "bring that back"),
            ("ca.crt.pem", "nonsense", "cannot read the certificate in ca.crt.pem"),
            ("localhost.key.pem", "nonsense", "put back the files"),
            ("localhost.crt.pem", "nonsense", "cannot read the certificate"),
            (
                "localhost.crt.pem",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "cannot read the certificate",
            ),
        ):
            with self.subTest(words, name=name):
                (self.directory / name).unlink()
                if content is not None:
                    (self.directory / name).write_text(content)
                message = self.run_vex("certificate", "renew", code=1)
                self.assertIn(words, message)
                self.assertEqual(message.count("\n"), 1, message)
                (self.directory / name).write_text(before[name])
        self.assertEqual({path.name: path.read_text() for path in self.directory.glob("*.pem")}, before)

    def test_a_certificate_of_somebody_else_is_left_alone(self) -> None:
        self.run_vex("quickstart", USER)
        ours = (self.directory / "localhost.crt.pem").read_text()
        for name in ("ca.crt.pem", "ca.key.pem"):
            (self.directory / name).unlink()
        self.assertIn("was not made by `vex quickstart`", self.run_vex("certificate", "renew", code=1))
        self.assertEqual((self.directory / "localhost.crt.pem").read_text(), ours)


if __name__ == "__main__":
    unittest.main()
