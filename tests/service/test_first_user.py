"""The first user that `vex serve` makes, what it prints then, and the first hour: a fresh clone, served and tested as a
newcomer does it.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.programs import require
from tests.support.registries import daemon, dockerd, require_root, run_on_terminal, temporary_directory
from tests.support.server import PASSWORD, TOP, Client, vex
from vex.access.users import Users
from vex.errors import Failure
from vex.service.first_user import Places, make_first_user, places
from vex.storage.database import Database

FREE_PORTS = tuple(word for name in ("public", "auth", "internal") for word in (f"--{name}-addr", "127.0.0.1:0"))
NOBODY = {"SUDO_USER": "", "LOGNAME": "", "USER": ""}
NEWCOMER = {**NOBODY, "LOGNAME": "newcomer"}


class Registry:
    """`vex serve` in a directory, on a terminal or not, with its log in a file; `shown` is what it has printed."""

    def __init__(self, directory: Path, command: list[str], environment: Mapping[str, str], *, terminal: bool) -> None:
        self.log = directory / "vex.log"
        self._ours, theirs = pty.openpty() if terminal else os.pipe()
        with open(self.log, "ab") as log:
            source = theirs if terminal else subprocess.DEVNULL
            variables = {**os.environ, **environment}
            self.process = subprocess.Popen(
                command, cwd=directory, stdin=source, stdout=theirs, stderr=log, env=variables
            )
        os.close(theirs)
        self.shown = ""
        self.read_to("ready\n")

    def read_to(self, end: str) -> None:
        """Read what it prints, up to a text or to the end of all."""
        # Linux reports that nobody has the other side of a terminal open any more as an I/O error.
        with contextlib.suppress(OSError):
            while not end or end not in self.shown:
                piece = os.read(self._ours, 4096)
                if not piece:
                    break
                self.shown += piece.decode().replace("\r\n", "\n")
        assert end in self.shown, self.shown + self.log.read_text()

    def end(self) -> None:
        """End it in order, and read the rest: the signal waits until all is printed."""
        self.process.terminate()
        self.read_to("")
        assert self.process.wait(timeout=60) == 0, self.log.read_text()

    def kill(self) -> None:
        """End it whatever happened."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def found(self, pattern: str) -> str:
        """Return the one group of a pattern in what was printed."""
        found = re.search(pattern, self.shown, re.MULTILINE)
        assert found, self.shown
        return found[1]

    @property
    def password(self) -> str:
        """The password that it printed."""
        return self.found("^  password  ([A-Za-z0-9]{20})$")

    def login(self, user: str, password: str) -> int:
        """Return the status of a request with a name and a password."""
        return Client(("127.0.0.1", int(self.found(r"^auth +\S+:([0-9]+)$"))), user, password).get("/v2/").status


class FirstUserCase(unittest.TestCase):
    """Registries in a directory of the test."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    @contextlib.contextmanager
    def serving(self, *flags: str, terminal: bool, environment: Mapping[str, str] = NEWCOMER) -> Iterator[Registry]:
        """Serve for a block."""
        registry = Registry(
            self.directory,
            [sys.executable, str(TOP / "vex.py"), "serve", *FREE_PORTS, *flags],
            environment,
            terminal=terminal,
        )
        try:
            yield registry
            registry.end()
        finally:
            registry.kill()

    def start_once(self, *flags: str, terminal: bool, environment: Mapping[str, str] = NEWCOMER) -> Registry:
        """Serve, end, and return what was printed."""
        with self.serving(*flags, terminal=terminal, environment=environment) as registry:
            pass
        return registry

    def users(self) -> list[str]:
        return vex("user", "list", cwd=self.directory).stdout.split()


class FirstStarts(FirstUserCase):
    """Who is made when."""

    def test_on_a_terminal_a_user_is_made_who_can_push_at_once(self) -> None:
        with self.serving(terminal=True) as registry:
            registry.read_to("in a browser")
            self.assertEqual(registry.login("newcomer", registry.password), 200)
            self.assertEqual(registry.login("newcomer", PASSWORD), 401)
        self.assertEqual(self.users(), ["newcomer"])
        for path in (registry.log, *(self.directory / "data").glob("vex.db*")):
            self.assertNotIn(registry.password.encode(), path.read_bytes(), path)
        self.assertTrue(registry.shown.startswith("public"), registry.shown)
        again = self.start_once(terminal=True)
        self.assertTrue(again.shown.endswith("ready\n"), again.shown)

    def test_without_a_terminal_nobody_is_made_and_the_log_says_how_to_add_a_user(self) -> None:
        registry = self.start_once("--log-format", "text", terminal=False)
        self.assertTrue(registry.shown.endswith("ready\n"), registry.shown)
        self.assertEqual(self.users(), [])
        advice = re.findall(
            r"WARNING no user can push yet; add one with: (\S+ \S+ user add )NAME( .*)$",
            registry.log.read_text(),
            re.MULTILINE,
        )
        self.assertEqual(len(advice), 1, registry.log.read_text())
        command = f"{advice[0][0]}bob{advice[0][1]}"
        subprocess.run(
            ["sh", "-c", command],
            cwd=self.directory,
            input=f"{PASSWORD}\n",
            text=True,
            check=True,
            env={**os.environ, "PATH": path_to_python()},
        )
        self.assertEqual(self.users(), ["bob"])
        self.assertNotIn("no user", self.start_once(terminal=False).log.read_text().partition("NAME")[2])

    def test_first_user_makes_one_without_a_terminal_and_only_while_there_is_none(self) -> None:
        with self.serving("--first-user", "robot", terminal=False) as registry:
            registry.read_to("in a browser")
            self.assertEqual(registry.login("robot", registry.password), 200)
        self.assertNotIn(registry.password, registry.log.read_text())
        for name in ("robot", "another"):
            again = self.start_once("--first-user", name, terminal=False)
            self.assertTrue(again.shown.endswith("ready\n"), again.shown)
        self.assertEqual(self.users(), ["robot"])

    def test_tokens_can_push_so_that_a_user_is_only_made_where_one_is_asked_for(self) -> None:
        vex("token", "add", "ci", cwd=self.directory)
        self.assertTrue(self.start_once(terminal=True).shown.endswith("ready\n"))
        self.assertNotIn("no user", (self.directory / "vex.log").read_text())
        taken = vex("serve", *FREE_PORTS, "--first-user", "ci", cwd=self.directory)
        self.assertEqual((taken.returncode, taken.stdout), (1, ""))
        self.assertIn("there is a token ci", taken.stderr)
        self.start_once("--first-user", "robot", terminal=False)
        self.assertEqual(self.users(), ["robot"])

    def test_where_nobody_can_push_nobody_is_made(self) -> None:
        registry = self.start_once("--auth-addr", "off", terminal=True)
        self.assertTrue(registry.shown.endswith("ready\n"), registry.shown)
        asked = vex("serve", *FREE_PORTS, "--auth-addr", "off", "--first-user", "robot", cwd=self.directory)
        self.assertEqual((asked.returncode, asked.stdout), (1, ""))
        self.assertIn("auth-addr is off", asked.stderr)
        self.assertEqual(self.users(), [])

    def test_a_name_that_no_user_can_have_is_refused_before_anything_is_made(self) -> None:
        asked = vex("serve", *FREE_PORTS, "--first-user", "-x y", cwd=self.directory)
        self.assertEqual(asked.returncode, 1)
        self.assertIn("is not a user name", asked.stderr)
        self.assertEqual(list(self.directory.iterdir()), [])


class PeopleAtTheKeyboard(FirstUserCase):
    """What the user is called."""

    def test_the_user_is_called_as_the_person_is_and_admin_where_no_user_can_be(self) -> None:
        for environment, name in (
            ({**NOBODY, "SUDO_USER": "alice", "LOGNAME": "root"}, "alice"),
            ({**NOBODY, "USER": "bob"}, "bob"),
            ({**NOBODY, "LOGNAME": "DOMAIN\\bob"}, "admin"),
            ({**NOBODY, "LOGNAME": "-bob"}, "admin"),
        ):
            with self.subTest(name), tempfile.TemporaryDirectory(dir=self.directory) as data:
                registry = self.start_once("--data-dir", data, terminal=True, environment=environment)
                self.assertEqual(registry.found("^  user      (.*)$"), name)

    def test_an_account_without_a_name_is_admin(self) -> None:
        require_root()
        setpriv = require("setpriv", "util-linux")
        self.directory.chmod(0o777)
        command = [
            setpriv,
            "--reuid=8200",
            "--regid=8200",
            "--clear-groups",
            sys.executable,
            str(TOP / "vex.py"),
            "serve",
            *FREE_PORTS,
        ]
        registry = Registry(self.directory, command, {**NOBODY, "PYTHONDONTWRITEBYTECODE": "1"}, terminal=True)
        try:
            registry.end()
        finally:
            registry.kill()
        self.assertEqual(registry.found("^  user      (.*)$"), "admin")


class Shown(FirstUserCase):
    """What is printed, and what happens where it cannot be."""

    def test_commands_name_the_places_where_the_registry_is_reached(self) -> None:
        public, auth = "http://127.0.0.1:1", "http://127.0.0.1:2"
        both, outside = {"public": public, "auth": auth}, "https://registry.example"
        for given, one_port, expected in (
            ((both, ""), False, Places("127.0.0.1:2", "127.0.0.1:1", f"{public}/", True)),
            ((both, ""), True, Places("127.0.0.1:2", "127.0.0.1:2", f"{public}/", True)),
            ((both, outside), False, Places("127.0.0.1:2", "registry.example", f"{outside}/", True)),
            ((both, outside), True, Places("registry.example", "registry.example", f"{public}/", False)),
            (({"auth": "https://[::1]:2"}, ""), False, Places("[::1]:2", "[::1]:2", "", False)),
            (({"public": public}, ""), False, Places("", "127.0.0.1:1", f"{public}/", False)),
            (({}, ""), False, Places("", "", "", False)),
        ):
            with self.subTest(given=given, one_port=one_port):
                self.assertEqual(places(*given, one_port=one_port), expected)

    def first_user(self, users: Users, where: Places) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            make_first_user(users, "newcomer", where)
        return out.getvalue()

    def new_users(self) -> Users:
        database = Database(self.directory / "vex.db")
        self.addCleanup(database.close)
        return Users(database)

    def test_who_came_first_elsewhere_stays_the_only_one(self) -> None:
        users = self.new_users()
        users.add("bob", PASSWORD)
        self.assertEqual(self.first_user(users, Places("", "", "", True)), "")
        self.assertEqual(users.names(), ["bob"])

    def test_without_a_port_no_command_is_shown(self) -> None:
        shown = self.first_user(self.new_users(), Places("", "", "", False))
        self.assertIn("  password  ", shown)
        self.assertNotIn("docker", shown)

    def test_where_docker_refuses_plain_http_that_is_said(self) -> None:
        users = self.new_users()
        for host, plain, refused in (
            ("192.0.2.1:8201", True, True),
            ("192.0.2.1:8201", False, False),
            ("127.0.0.1:8201", True, False),
        ):
            with self.subTest(host=host, plain=plain):
                self.assertEqual("refuses" in self.first_user(users, Places(host, host, "", plain)), refused)
            users.delete("newcomer")

    def test_a_user_whose_password_could_not_be_shown_is_not_left_behind(self) -> None:
        users = self.new_users()
        with open("/dev/full", "w", encoding="ascii") as full, contextlib.redirect_stdout(full):
            with self.assertRaisesRegex(Failure, "cannot show the password"):
                make_first_user(users, "newcomer", Places("", "", "", True))
            with contextlib.suppress(OSError):
                full.close()
        self.assertEqual(users.names(), [])


class FirstHour(unittest.TestCase):
    """A fresh clone, of what is committed."""

    alone = True

    clone: Path

    @classmethod
    def setUpClass(cls) -> None:
        git = require("git", "git")
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(temporary_directory())
            cls.clone = directory / "vex"
            subprocess.run([git, "clone", "--quiet", "--depth", "1", TOP.as_uri(), str(cls.clone)], check=True)
            cls.addClassCleanup(stack.pop_all().close)

    def test_what_serve_prints_can_be_pasted_with_docker(self) -> None:
        require_root()
        require("docker", "docker.io")
        with (
            temporary_directory() as directory,
            daemon(directory, *dockerd(directory, f"unix://{directory}/docker.sock")),
        ):
            (directory / "empty").mkdir()
            command = [sys.executable, str(self.clone / "vex.py"), "serve", *FREE_PORTS]
            registry = Registry(directory / "empty", command, NEWCOMER, terminal=True)
            try:
                registry.read_to("in a browser:\n  http")
                commands = re.findall(r"^  ((?:docker|tar) .*)$", registry.shown, re.MULTILINE)
                self.assertEqual(len(commands), 4)
                environment = {
                    "DOCKER_HOST": f"unix://{directory}/docker.sock",
                    "DOCKER_CONFIG": str(directory / "config"),
                }
                outputs = [
                    run_on_terminal("sh", "-c", line, environment=environment, password=registry.password)
                    for line in commands
                ]
                self.assertIn("Login Succeeded", outputs[0])
                self.assertRegex(outputs[2], "digest: sha256:[0-9a-f]{64}")
                self.assertIn("Status: ", outputs[3])
                registry.end()
                self.assertNotIn("Traceback", registry.log.read_text())
            finally:
                registry.kill()

    def test_the_tests_are_found_and_pass(self) -> None:
        # All modules are loaded, which is what a clone could lack something for; one test of them runs.
        command = [sys.executable, "-m", "unittest", "-k", "test_imports_between_rooms_point_down"]
        ended = subprocess.run(command, cwd=self.clone, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertIn("Ran 1 test in", ended.stderr)


def path_to_python() -> str:
    """Return a PATH on which the name of this interpreter is this interpreter."""
    return f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
