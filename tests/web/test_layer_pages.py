"""Pages of layers: lists in parts, made once; what they cost, whatever is in a layer; and when the work at one ends."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import random
import re
import socket
import tarfile
import threading
import time
import unittest
from pathlib import Path

from tests.support.in_process import InProcess
from tests.support.layers import HAS_ZSTD
from tests.support.page import Page, PagesTestCase
from tests.support.server import OCI_CONFIG, OCI_MANIFEST, Server, ServerTestCase, descriptor, digest_of
from tests.support.tars import archive, member
from vex.formats.layer import Entry, Limits
from vex.http.message import Response
from vex.names import Digest
from vex.progress import UNHURRIED, Work
from vex.web.layer_lists import LayerList, LayerLists, make_list

MIB = 1024 * 1024
PEAK_BYTES = 64 * MIB
PAGE_BYTES = MIB
# Much less than the work that ends early here would take.
SOON_SECONDS = 8
_LAYER = Digest(f"sha256:{'0' * 64}")


class LayerPagesTestCase(PagesTestCase):
    """One image with one layer."""

    def push_layer(self, content: bytes) -> str:
        """Push an image with a layer; returns the path of its page."""
        pushed = self.push_image("app", "v1", content)
        return f"/r/app/m/{pushed.digest}/layer/{digest_of(content)}/"

    def get(self, target: str, **headers: str) -> Response:
        """Ask for a page, with header fields."""
        return self.respond(target, headers={name.replace("_", "-"): value for name, value in headers.items()})


class Parts(LayerPagesTestCase):
    def test_a_long_list_comes_in_pages(self) -> None:
        path = self.push_layer(archive(*(member(f"file-{number:03}") for number in range(250))))
        for query, first, last in (
            ("", 0, 99),
            ("?page=2", 100, 199),
            ("?page=3", 200, 249),
            ("?page=99999", 200, 249),
        ):
            page = self.page(path + query)
            self.assert_shows(
                page, f"file-{first:03}", f"file-{last:03}", f"{first + 1}\u2013{last + 1} of 250", "250 entries"
            )
            self.assertEqual(page.text.count("file-"), last - first + 1)

    def test_no_crawler_is_led_to_pages_that_cost_much(self) -> None:
        path = self.push_layer(archive(*(member(str(number)) for number in range(250))))
        all_platforms = self.push_index("app", "all", [self.push_image("app", "v2", b"x")])
        for target in (path.partition("layer/")[0], f"{path}?page=2", f"/r/app/m/{all_platforms.digest}/"):
            links = re.findall(r"<a ([^>]*)>", self.respond(target).body.decode())
            heavy = [link for link in links if "layer/" in link or "image.tar" in link]
            self.assertTrue(heavy, target)
            self.assertEqual([link for link in heavy if "nofollow" not in link], [])

    def test_robots_are_told_to_stay_away_from_them(self) -> None:
        response = self.respond("/robots.txt")
        self.assertEqual((response.status, dict(response.headers)["Content-Type"]), (200, "text/plain; charset=utf-8"))
        lines = response.body.decode().splitlines()
        self.assertEqual(lines[0], "User-agent: *")
        self.assertIn("Disallow: /r/*/m/*/layer/", lines)

    def test_names_are_cut_where_they_are_shown(self) -> None:
        path = self.push_layer(
            archive(member("a" * 3000 + "/name"), member("b", tarfile.SYMTYPE, linkname="c" * 3000 + "/target"))
        )
        page = self.page(path)
        self.assert_shows(page, "aaa … a", "/name (3,005 characters)", "ccc … c", "/target (3,007 characters)")
        self.assertLess(len(page.text), 3000)

    def test_an_encrypted_layer_is_said_to_be_encrypted(self) -> None:
        content = b"\x8f" * 1000
        for blob in (content, b"{}"):
            self.push_blob("app", blob)
        layer = descriptor(content, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted")
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(b"{}", OCI_CONFIG),
            "layers": [layer],
        }
        pushed = self.push_manifest("app", "secret", document)
        self.assert_shows(
            self.page(f"/r/app/m/{pushed.digest}/layer/{digest_of(content)}/"), "0 entries", "This layer is encrypted"
        )


class Keeping(LayerPagesTestCase):
    def test_a_list_is_made_once(self) -> None:
        path = self.push_layer(archive(*(member(f"file-{number:03}") for number in range(250))))
        self.page(path)
        file = _blob_file(self.site, path)
        file.chmod(0o600)
        file.write_bytes(bytes(file.stat().st_size))
        self.assert_shows(self.page(f"{path}?page=3"), "file-249", "250 entries")

    def test_what_digests_alone_say_is_kept_by_browsers_and_proxies(self) -> None:
        path = self.push_layer(archive(member("a")))
        headers = dict(self.get(path).headers)
        self.assertEqual(headers["Cache-Control"], "public, max-age=86400, immutable")
        again = self.get(path, If_None_Match=headers["ETag"])
        self.assertEqual(
            (again.status, again.body, dict(again.headers)),
            (304, b"", {name: headers[name] for name in ("ETag", "Cache-Control", "Vary")}),
        )
        for other in (f"{path}?page=2", f"{path}?tag=v1"):
            self.assertEqual(self.get(other, If_None_Match=headers["ETag"]).status, 200)
        self.assertEqual(self.respond(path, "other.test", {"If-None-Match": headers["ETag"]}).status, 200)

    def test_a_page_that_names_a_tag_is_asked_for_again(self) -> None:
        path = self.push_layer(archive(member("a")))
        headers = dict(self.get(f"{path}?tag=v1").headers)
        self.assertEqual(headers["Cache-Control"], "no-cache")
        self.assertEqual(self.get(f"{path}?tag=v1", If_None_Match=headers["ETag"]).status, 304)
        self.push_image("app", "v1", b"other")
        self.site.advance(1)
        self.assertNotEqual(self.get(f"{path}?tag=v1", If_None_Match=headers["ETag"]).status, 304)

    def test_a_list_that_ends_because_time_was_up_may_be_another_next_time(self) -> None:
        content = archive(member("a"))
        self.assertFalse(make_list(io.BytesIO(content), Limits(seconds=-1), UNHURRIED, 100).certain)
        self.assertTrue(make_list(io.BytesIO(content), Limits(headers=0), UNHURRIED, 100).certain)

    def test_a_list_takes_so_much_memory_and_no_more(self) -> None:
        content = archive(*(member(f"{number}-{digest_of(b'%d' % number)}") for number in range(1000)))
        listed = make_list(io.BytesIO(content), Limits(), UNHURRIED, 100, most_bytes=20_000)
        self.assertLess(listed.bytes, 30_000)
        self.assertTrue(0 < listed.entries < 1000)
        self.assertIn("This list is cut: the names in the layer take more than", listed.problem)

    def test_those_that_were_used_last_stay(self) -> None:
        lists = LayerLists(most_bytes=1000)
        made: list[Digest] = []

        def get(number: int) -> None:
            layer = Digest(f"sha256:{number:064}")

            def make() -> LayerList:
                made.append(layer)
                return LayerList([bytes(150)], 1, 0, "", True)

            self.assertEqual(lists.get(layer, make, UNHURRIED).entries, 1)

        for number in (0, 1, 0, 2, 0, 3, 0, 1):
            get(number)
        self.assertEqual([int(layer[7:]) for layer in made], [0, 1, 2, 3, 1])

    def test_a_list_that_several_want_is_made_by_one(self) -> None:
        lists = LayerLists()
        made: list[int] = []
        begun, others = threading.Event(), threading.Event()

        class Waits(Work):
            def step(self) -> None:
                others.set()

        def make() -> LayerList:
            made.append(1)
            begun.set()
            others.wait(10)
            return LayerList([], 0, 0, "", True)

        first = threading.Thread(target=lists.get, args=(_LAYER, make, UNHURRIED))
        first.start()
        self.assertTrue(begun.wait(10))
        lists.get(_LAYER, make, Waits())
        first.join(10)
        self.assertEqual(made, [1])

    def test_when_nobody_waits_for_it_any_more_the_next_one_makes_it(self) -> None:
        lists = LayerLists()

        def leave() -> LayerList:
            raise ConnectionError

        with contextlib.suppress(ConnectionError):
            lists.get(_LAYER, leave, UNHURRIED)
        self.assertEqual(lists.get(_LAYER, lambda: LayerList([], 7, 0, "", True), UNHURRIED).entries, 7)

    def test_entries_come_back_as_they_were(self) -> None:
        listed = make_list(
            io.BytesIO(archive(member("größe/日本\x01", content=b"x"), member("l", tarfile.SYMTYPE, linkname="t"))),
            Limits(),
            UNHURRIED,
            1,
        )
        self.assertEqual(listed.page(0), [Entry("file", "größe/日本\x01", 1, "-rw-r--r--", "0:0", "")])
        self.assertEqual([entry.target for entry in listed.page(1)], ["t"])
        self.assertEqual(listed.page(2), [])


class Busy(LayerPagesTestCase):
    def test_who_cannot_have_a_turn_is_told_when_to_come_back(self) -> None:
        path = self.push_layer(archive(member("a")))
        self.work.end()
        response = self.respond(path)
        self.assertEqual((response.status, dict(response.headers)["Retry-After"]), (503, "10"))
        self.assertIn("try again", Page(response.body.decode()).text)


def _blob_file(site: InProcess, path: str) -> Path:
    return site.directory / "blobs" / "sha256" / path.rstrip("/").rpartition(":")[2]


def _hidden(count: int) -> bytes:
    """Make a layer of headers that show nothing: they are read until a limit or nobody waits any more."""
    header = tarfile.TarInfo(".wh..wh.aufs").tobuf(tarfile.GNU_FORMAT)
    return gzip.compress(header * 20_000, 1) * (count // 20_000)


class Hostile(ServerTestCase):
    """What a layer costs that was made to cost much."""

    def path(self, content: bytes) -> str:
        """Push an image with this layer; returns the path of its page."""
        digest = self.server.auth.push_image("app", digest_of(content)[7:20], content)
        return f"/r/app/m/{digest}/layer/{digest_of(content)}/"

    def peak(self) -> int:
        """Tell how much memory the server has had at once so far."""
        return 1024 * int(
            re.findall(r"VmHWM:\s+([0-9]+) kB", Path(f"/proc/{self.server.process.pid}/status").read_text())[0]
        )

    @unittest.skipUnless(Path("/proc/self/status").exists(), "needs /proc, which Linux has")
    def test_memory_and_size_of_a_page_do_not_depend_on_what_is_in_the_layer(self) -> None:
        # Compressed no better than usual layers.
        values = [
            chance.randbytes(5000).hex().encode().ljust(250_000 - 15, b"v") for chance in map(random.Random, range(400))
        ]
        records = [
            member("x", tarfile.XHDTYPE, b"%d k%05d=%s\n" % (250_000, number, value))
            for number, value in enumerate(values)
        ]
        names = [member("<" * 260_000 + f"{number}") for number in range(250)]
        links = [member(f"{number}", tarfile.SYMTYPE, linkname="\u202e" * 80_000) for number in range(250)]
        layers = [gzip.compress(archive(*members, form=tarfile.GNU_FORMAT), 1) for members in (records, names, links)]
        if HAS_ZSTD:
            zstd = importlib.import_module("compression.zstd")
            large = archive(
                *(member(str(number), content=random.Random(number).randbytes(MIB)) for number in range(40))
            )
            layers.append(
                zstd.compress(
                    large,
                    options={zstd.CompressionParameter.compression_level: 1, zstd.CompressionParameter.window_log: 25},
                )
            )
        paths = [self.path(layer) for layer in layers]
        self.server.public.get(self.path(archive(member("usual"))))
        before = self.peak()
        for path in paths:
            answer = self.server.public.get(path)
            self.assertEqual(answer.status, 200)
            self.assertLess(len(answer.body), PAGE_BYTES)
            self.assertLess(self.peak() - before, PEAK_BYTES)

    def test_many_small_records_are_read_in_one_pass(self) -> None:
        content = archive(*[member("x", tarfile.XHDTYPE, b"6 a=b\n" * 40_000)] * 10)
        started = time.process_time()
        self.assertEqual(make_list(io.BytesIO(content), Limits(), UNHURRIED, 100).entries, 0)
        self.assertLess(time.process_time() - started, 3)

    def begin(self, server: Server, target: str) -> socket.socket:
        """Ask for a page whose making takes long, and wait until the server is at it."""
        connection = socket.create_connection(server.addresses["public"])
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {server.addresses['public'][0]}\r\n\r\n".encode())
        self.wait_for(server, 1)
        return connection

    def wait_for(self, server: Server, requests: int) -> float:
        """Wait until so many requests are under way; returns how many seconds that took."""
        started = time.monotonic()
        while server.metric('vex_requests_in_flight{listener="public"}') != requests:
            self.assertLess(time.monotonic() - started, 60)
            time.sleep(0.05)
        return time.monotonic() - started

    def test_the_work_ends_when_the_client_has_gone(self) -> None:
        path = self.path(_hidden(1_000_000))
        self.begin(self.server, path).close()
        self.assertLess(self.wait_for(self.server, 0), SOON_SECONDS)

    def test_the_work_ends_with_the_process(self) -> None:
        with self.begin(self.server, self.path(_hidden(980_000))) as connection:
            started = time.monotonic()
            self.assertEqual(self.server.stop(), 0)
            self.assertLess(time.monotonic() - started, SOON_SECONDS)
            self.assertIn(b" 503 ", connection.recv(100))
        self.server.start()
