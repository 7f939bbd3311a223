"""Lists of very many names: complete where nobody asked for a part, made in little memory, and never in the way of
those who pull and push.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Iterator

from tests.support.crowded import REPOSITORIES, TAGS, repository_name, running_crowded, tag_name
from tests.support.lists import LINK, walk
from tests.support.memory import peak_bytes
from tests.support.programs import require, require_client
from tests.support.raw import basic
from tests.support.registries import run, temporary_directory
from tests.support.server import Server

LIST_BYTES = 8 * 2**20
READERS = 30
# Clients that take the first answer for the whole list; each is given HOST:PORT.
_PYTHON_CLIENTS = {
    "docker-registry-client": """
import json, sys
from docker_registry_client import DockerRegistryClient
print(json.dumps(DockerRegistryClient("http://" + sys.argv[1]).repository("many").tags()))
""",
    "containerimage-py": """
import json, sys
from image.client import ContainerImageRegistryClient
print(json.dumps(ContainerImageRegistryClient.list_tags(sys.argv[1] + "/many", {}, http=True)["tags"]))
""",
}
_NODE_CLIENT = """
const client = require("docker-registry-client").createClientV2({
  name: process.argv[2] + "/many", insecure: true, maxSchemaVersion: 2,
});
client.listTags((error, found) => { if (error) throw error; console.log(JSON.stringify(found.tags)); client.close(); });
"""
# Asks for pages, 16 at once, until its standard input ends.
_ASKING = """
import http.client, sys, threading
def ask(number):
    connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]))
    while True:
        for path in sys.argv[3:]:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            sys.stdout.write(f"{response.status}\\n")
            sys.stdout.flush()
for number in range(16):
    threading.Thread(target=ask, args=(number,), daemon=True).start()
sys.stdin.read()
"""


class LongLists(unittest.TestCase):
    """One server with a crowd of names."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        """Start it."""
        context = running_crowded()
        cls.server = context.__enter__()
        cls.addClassCleanup(context.__exit__, None, None, None)
        cls.server.auth.push_image("hot", "v1", b"a layer")

    def test_all_tags_come_where_no_number_is_asked_for(self) -> None:
        answer = self.server.public.get("/v2/many/tags/list")
        self.assertEqual(answer.json, {"name": "many", "tags": sorted(str(number) for number in range(1500))})
        self.assertNotIn("Link", answer.headers)
        self.assertEqual(answer.headers["Content-Length"], str(len(answer.body)))
        after = self.server.public.get("/v2/many/tags/list?last=998")
        self.assertEqual((after.json["tags"], after.headers["Link"]), (["999"], None))

    def test_a_long_list_ends_at_eight_mebibytes_with_a_link_to_the_rest(self) -> None:
        for path, key, expected in (
            ("/v2/tags/tags/list", "tags", [tag_name(number) for number in range(TAGS)]),
            (
                "/v2/_catalog",
                "repositories",
                sorted(["hot", "many", "tags", *map(repository_name, range(REPOSITORIES))]),
            ),
        ):
            with self.subTest(path):
                names, sizes = walk(self.server.public, path, key)
                self.assertEqual(names, expected)
                self.assertEqual(len(sizes), 2)
                first = self.server.public.get(path)
                self.assertLessEqual(len(first.body), LIST_BYTES + 1000)
                self.assertGreater(len(first.body), LIST_BYTES * 0.9)
                self.assertIsNotNone(LINK.fullmatch(first.headers["Link"]))

    def test_a_long_list_keeps_the_connection_and_has_a_head(self) -> None:
        with contextlib.closing(http.client.HTTPConnection(*self.server.addresses["public"], timeout=60)) as connection:
            for method in ("HEAD", "GET", "HEAD"):
                connection.request(method, "/v2/tags/tags/list")
                response = connection.getresponse()
                body = response.read()
                self.assertEqual(
                    (response.status, response.headers["Content-Type"], bool(body)),
                    (200, "application/json", method == "GET"),
                )
                self.assertIn('rel="next"', response.headers["Link"])

    def test_a_number_that_is_asked_for_counts_as_before(self) -> None:
        answer = self.server.public.get("/v2/tags/tags/list?n=2000")
        self.assertEqual(len(answer.json["tags"]), 2000)
        self.assertEqual(len(self.server.public.get("/v2/tags/tags/list?n=100000").json["tags"]), 10_000)

    def test_lists_that_are_read_slowly_take_little_memory(self) -> None:
        before = peak_bytes(self.server)
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(self._asked("/v2/tags/tags/list")) for _ in range(READERS)]
            for response in slow:
                # More than the buffers of the kernel hold.
                read = response.read(2**20)
                self.assertEqual(
                    json.loads(read[: read.rindex(b",")] + b"]}")["tags"][-1], tag_name(read.count(b",") - 2)
                )
        self.assertLess(peak_bytes(self.server) - before, 48 * 2**20)

    @contextlib.contextmanager
    def _asked(self, path: str) -> Iterator[http.client.HTTPResponse]:
        with contextlib.closing(http.client.HTTPConnection(*self.server.addresses["public"], timeout=60)) as connection:
            connection.request("GET", path)
            yield connection.getresponse()

    def test_clients_from_pypi_and_npm_that_follow_no_link_see_all_tags(self) -> None:
        host = "{}:{}".format(*self.server.addresses["public"])
        python, regshape = require_client("bin/python"), require_client("bin/regshape")
        commands = {name: [python, "-c", code, host] for name, code in _PYTHON_CLIENTS.items()}
        commands["regshape"] = [regshape, "--insecure", "tag", "list", "--json", "-i", f"{host}/many"]
        modules = require_client("node_modules/docker-registry-client/package.json").partition(
            "docker-registry-client"
        )[0]
        commands["docker-registry-client of npm"] = [require("node", "nodejs"), "-e", _NODE_CLIENT, "x", host]
        for name, command in commands.items():
            with self.subTest(name), temporary_directory() as home:
                found = json.loads(run(*command, environment={"NODE_PATH": modules, "HOME": str(home)}).stdout)
                self.assertEqual(
                    sorted(found["tags"] if isinstance(found, dict) else found),
                    sorted(str(number) for number in range(1500)),
                )

    # What others notice

    def test_searches_do_not_delay_a_pull_with_a_password(self) -> None:
        self.check_pulls("/?q=zzz", "/?q=large&sort=-pushed", "/r/tags/?q=zzz", "/v1/search?q=zzz")

    def test_lists_do_not_delay_a_pull_with_a_password(self) -> None:
        self.check_pulls(
            "/", "/?page=900", "/r/many/", "/r/tags/?page=600&sort=size", "/v2/tags/tags/list", "/r/team-001/"
        )

    def check_pulls(self, *paths: str) -> None:
        """Check that sixteen who ask for these pages, again and again, make others wait for no more than three times as
        long as without them.
        """
        with contextlib.closing(http.client.HTTPConnection(*self.server.addresses["auth"], timeout=60)) as connection:
            for attempt in range(3):
                idle = _median_pull(connection)
                with self._asking(*paths):
                    busy = _median_pull(connection)
                if busy < 3 * idle or attempt == 2:
                    break
        self.assertLess(busy, 3 * idle)

    @contextlib.contextmanager
    def _asking(self, *paths: str) -> Iterator[None]:
        host, port = self.server.addresses["public"]
        command = [sys.executable, "-c", _ASKING, host, str(port), *paths]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin and process.stdout
            statuses = {process.stdout.readline().strip() for _ in range(2 * len(paths))}
            self.assertLessEqual(statuses, {"200", "503"})
            self.assertIn("200", statuses)
            drained = threading.Thread(target=process.stdout.read)
            drained.start()
            try:
                yield
            finally:
                process.stdin.close()
                drained.join()


def _median_pull(connection: http.client.HTTPConnection) -> float:
    """Return how many seconds a manifest takes, as a rule."""
    seconds = []
    ends = time.monotonic() + 1
    while time.monotonic() < ends:
        started = time.perf_counter()
        connection.request("GET", "/v2/hot/manifests/v1", headers={"Authorization": basic()})
        response = connection.getresponse()
        response.read()
        seconds.append(time.perf_counter() - started)
        assert response.status == 200, response.status
        # As clients of a registry do: they do not ask in a tight loop.
        time.sleep(0.005)
    return statistics.median(seconds)


if __name__ == "__main__":
    unittest.main()
