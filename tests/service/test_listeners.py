"""What each listener allows: a table written by hand, compared with every route, method and kind of credentials; CORS;
writes across sites.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from tests.support.operations import (
    ABSENT,
    ALIVE,
    AUTH_ALLOWS,
    INTERNAL_ALLOWS,
    LAYER,
    METHODS,
    PATHS,
    PUBLIC_ALLOWS,
    UNKNOWN_METHODS,
    requests,
)
from tests.support.raw import basic, connected
from tests.support.server import OCI_MANIFEST, USER, Answer, Client, ServerTestCase
from vex.api import routes
from vex.service.app import POLICIES
from vex.web.addresses import HELP, HELP_PAGE, INDEX, STATIC

WRITES = ("POST", "PUT", "PATCH", "DELETE")


MALFORMED = {
    "none": "",
    "another scheme": "Bearer x",
    "digest": "Digest x",
    "no scheme": basic().partition(" ")[2],
    "nothing behind the scheme": "Basic",
    "bad base64": "Basic !!!!",
    "base64 that is cut": basic()[:-1] + "=",
    "no colon": "Basic " + base64.b64encode(USER.encode()).decode(),
    "empty name": basic(user=""),
    "empty name and password": basic(user="", password=""),
    "NUL": basic(password="correct\0horse"),
    "not UTF-8": "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
    "over 4 KiB": basic(password="x" * 4096),
    "twice": f"{basic()}, {basic()}",
}

RIGHT = "the right password"
CREDENTIALS = {
    "none": "",
    RIGHT: basic(),
    "a wrong password": basic(password="wrong password"),
    "a user that is not there": basic(user="nobody"),
    "another scheme": "Bearer x",
    "malformed": "Basic !!!!",
}


def allow(answer: Answer) -> set[str]:
    return {method.strip() for method in (answer.headers["Allow"] or "").split(",")}


class ListenerCase(ServerTestCase):
    """A registry with one image, and many wrong passwords to try."""

    flags = ("--failed-logins", "1000000", "--upload-sessions", "1000")

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server.auth.push_image("team/app", "v1", b"layer")

    def assert_refused_method(self, answer: Answer, method: str) -> None:
        """Check for 405 or 501 that echoes nothing."""
        self.assertIn(answer.status, (405, 501))
        self.assertNotIn(method.encode() if method not in METHODS else b"<", answer.body)

    def assert_status(self, answer: Answer, method: str, status: int) -> None:
        self.assertEqual(answer.status, status, answer)
        if status == 404 and method != "HEAD":
            self.assertNotEqual(answer.codes, ["NOT_FOUND"], "the route was not found")


class Authorization(ListenerCase):
    """(listener, method, route, credentials): allow or deny."""

    def test_the_table_covers_every_route(self) -> None:
        every = (*routes.REGISTRY, *routes.INTERNAL, routes.HEALTHZ, HELP, HELP_PAGE, INDEX, STATIC)
        operations = {route.op for route in every}
        for table in (PUBLIC_ALLOWS, AUTH_ALLOWS, INTERNAL_ALLOWS, PATHS):
            self.assertEqual(set(table), operations)
        for route in every:
            self.assertTrue(route.pattern.fullmatch(PATHS[route.op].partition("?")[0]), route.op)

    def test_public_reads_and_nothing_else_whatever_the_credentials(self) -> None:
        for kind, authorization in CREDENTIALS.items():
            for operation, method, path in requests():
                with self.subTest(operation=operation, method=method, credentials=kind):
                    answer = self.ask("public", method, path, authorization)
                    if method in PUBLIC_ALLOWS[operation]:
                        self.assert_status(answer, method, PUBLIC_ALLOWS[operation][method])
                    elif method in WRITES:
                        self.assert_error(answer, 405, "UNSUPPORTED") if path.startswith("/v2/") else self.assertEqual(
                            answer.status, 405
                        )
                        self.assertEqual(allow(answer), {"GET", "HEAD", "OPTIONS"})
                    elif method in UNKNOWN_METHODS:
                        self.assert_refused_method(answer, method)
                    else:
                        self.assertEqual(
                            answer.status, 204 if method == "OPTIONS" and PUBLIC_ALLOWS[operation] else 404
                        )

    def test_auth_answers_every_request_without_the_right_password_with_a_challenge(self) -> None:
        for kind, authorization in CREDENTIALS.items():
            # Whoever is wrong is so at the price of a hash: the methods that nobody knows come without.
            methods = METHODS if authorization.startswith("Basic") else (*METHODS, *UNKNOWN_METHODS)
            for operation, method, path in requests():
                if kind != RIGHT and method in methods and not (operation == "healthz" and method in ALIVE):
                    with self.subTest(operation=operation, method=method, credentials=kind):
                        self.assert_challenge(self.ask("auth", method, path, authorization), method)
        for user in (USER.upper(), "a b", "\u00e9", "x" * 200):
            with self.subTest(user):
                self.assert_challenge(self.ask("auth", "GET", "/v2/", basic(user=user)), "GET")

    def test_auth_answers_what_is_not_well_formed_with_a_challenge(self) -> None:
        for name, authorization in MALFORMED.items():
            for method, path in (
                ("GET", "/v2/"),
                ("HEAD", PATHS["manifest"]),
                ("POST", PATHS["uploads"]),
                ("PUT", PATHS["manifest"]),
            ):
                with self.subTest(name=name, method=method):
                    self.assert_challenge(self.ask("auth", method, path, authorization), method)

    def test_auth_takes_the_scheme_in_any_case(self) -> None:
        for scheme in ("basic", "BASIC"):
            self.assertEqual(self.ask("auth", "GET", "/v2/", basic().replace("Basic", scheme)).status, 200)

    def assert_not_allowed(self, answer: Answer, method: str, allowed: Mapping[str, int]) -> None:
        """Check the answer to a method that a listener does not take at a path, or not at any."""
        if method in UNKNOWN_METHODS:
            self.assert_refused_method(answer, method)
        elif not allowed:
            self.assertEqual(answer.status, 404)
        else:
            self.assertEqual((answer.status, allow(answer)), (405, set(allowed)))

    def test_auth_allows_the_whole_registry_with_the_password(self) -> None:
        for operation, method, path in requests():
            with self.subTest(operation=operation, method=method):
                answer = self.server.auth.request(method, path)
                allowed = AUTH_ALLOWS[operation]
                if method in allowed:
                    self.assert_status(answer, method, allowed[method])
                else:
                    self.assert_not_allowed(answer, method, allowed)

    def test_internal_serves_metrics_and_health_alone_whatever_the_credentials(self) -> None:
        for kind, authorization in CREDENTIALS.items():
            for operation, method, path in requests():
                with self.subTest(operation=operation, method=method, credentials=kind):
                    answer = self.ask("internal", method, path, authorization)
                    allowed = INTERNAL_ALLOWS[operation]
                    if method in allowed:
                        self.assertEqual(answer.status, 200)
                    else:
                        self.assert_not_allowed(answer, method, allowed)

    def test_pages_are_on_the_public_listener_alone_and_only_read(self) -> None:
        known = {route.template for route in routes.REGISTRY}
        pages = [
            route for route in POLICIES["public"].routes if route.template not in known and route is not routes.HEALTHZ
        ]
        self.assertTrue(pages)
        for route in pages:
            path = re.sub(r"<\w+>", "x", route.template)
            with self.subTest(path):
                self.assertNotIn(self.server.public.get(path).status, (401, 403, 405, 500, 501))
                for method in WRITES:
                    answer = self.server.public.request(method, path)
                    self.assertEqual((answer.status, allow(answer)), (405, {"GET", "HEAD", "OPTIONS"}))
                self.assertEqual(self.server.auth.get(path).status, 404)
                self.assertEqual(
                    self.server.internal.get(path).status,
                    200 if path == "/" else 404,
                    "the internal listener has a front page of its own",
                )

    def test_every_listener_says_without_credentials_and_with_any_that_it_is_alive(self) -> None:
        for listener in self.server.addresses:
            for credentials in CREDENTIALS.values():
                for method in ALIVE:
                    with self.subTest(listener=listener, credentials=credentials, method=method):
                        answer = self.ask(listener, method, "/healthz", credentials)
                        self.assertEqual(
                            (answer.status, answer.body, answer.headers["Content-Length"]), (200, b"", "0")
                        )
                        self.assertEqual(
                            (answer.headers["Cache-Control"], answer.headers["Access-Control-Allow-Origin"]),
                            ("no-store", None),
                        )

    def test_a_denied_write_changes_nothing(self) -> None:
        manifest = self.server.public.get(PATHS["manifest"])
        for client in (
            self.server.public,
            Client(self.server.addresses["auth"]),
            Client(self.server.addresses["auth"], USER, "wrong password"),
        ):
            for method, body in (("PUT", manifest.body), ("DELETE", None)):
                answer = client.request(
                    method,
                    "/v2/team/app/manifests/denied" if body else PATHS["manifest"],
                    body,
                    {"Content-Type": OCI_MANIFEST},
                )
                self.assertIn(answer.status, (401, 405))
        self.assertEqual(self.server.public.get("/v2/team/app/tags/list").json["tags"], ["v1"])

    def ask(self, listener: str, method: str, path: str, authorization: str) -> Answer:
        return Client(self.server.addresses[listener]).request(
            method, path, headers={"Authorization": authorization} if authorization else {}
        )

    def assert_challenge(self, answer: Answer, method: str) -> None:
        self.assertEqual(answer.status, 401)
        self.assertRegex(answer.headers["WWW-Authenticate"], r'^Basic realm="[^"]+"')
        if method != "HEAD":
            self.assert_error(answer, 401, "UNAUTHORIZED")


class Errors(ListenerCase):
    """What errors say to caches, and to those who are at the wrong port."""

    def test_no_cache_keeps_an_error(self) -> None:
        nobody = Client(self.server.addresses["auth"])
        for client, method, path, status in (
            (self.server.public, "GET", "/v2/team/app/manifests/later", 404),
            (self.server.public, "HEAD", "/v2/team/app/manifests/later", 404),
            (self.server.public, "GET", f"/v2/team/app/blobs/{ABSENT}", 404),
            (self.server.public, "GET", "/v2/later/tags/list", 404),
            (self.server.public, "GET", "/v2/nothing", 404),
            (self.server.public, "GET", "/v2/team/app/manifests/..", 400),
            (self.server.public, "PUT", "/v2/team/app/manifests/v1", 405),
            (self.server.public, "BREW", "/v2/", 501),
            (nobody, "GET", "/v2/team/app/manifests/v1", 401),
            (self.server.auth, "GET", "/v2/team/app/manifests/later", 404),
            (self.server.auth, "BREW", "/v2/", 501),
            (self.server.internal, "GET", "/v2/", 404),
        ):
            with self.subTest(method=method, path=path, status=status):
                answer = client.request(method, path)
                self.assertEqual((answer.status, answer.headers.get_all("Cache-Control")), (status, ["no-store"]))
        self.assertEqual(self.server.public.get("/r/later/").headers["Cache-Control"], "no-cache")
        answer = self.server.public.get(f"/v2/team/app/blobs/{LAYER}", {"Range": "bytes=99-"})
        self.assertEqual((answer.status, answer.headers.get_all("Cache-Control")), (416, ["no-store"]))

    def test_no_cache_keeps_an_error_of_a_request_that_is_not_well_formed(self) -> None:
        for address in self.server.addresses.values():
            with connected(address) as wire:
                wire.send(b"GET /v2/ HTTP/1.1\r\n\r\n")
                answer = wire.answer()
                self.assertEqual((answer.status, answer.headers.get_all("Cache-Control")), (400, ["no-store"]))

    def test_caches_ask_before_they_give_a_list_again(self) -> None:
        for path in (PATHS["tags"], PATHS["catalog"], PATHS["referrers"], PATHS["manifest"]):
            self.assertEqual(self.server.public.get(path).headers.get_all("Cache-Control"), ["no-cache"], path)

    def test_ports_where_nobody_pushes_name_the_one_for_that(self) -> None:
        port = self.server.addresses["auth"][1]
        public, internal = self.server.public, self.server.internal
        for client, method, status in (
            (public, "PUT", 405),
            (public, "DELETE", 405),
            (internal, "PUT", 404),
            (internal, "GET", 404),
        ):
            answer = client.request(method, "/v2/team/app/manifests/v1")
            self.assertEqual(answer.status, status)
            self.assertRegex(answer.json["errors"][0]["message"], rf"; push and delete at port {port}$")
        self.assertIn("and no images", internal.get("/v2/team/app/manifests/v1").json["errors"][0]["message"])

    def test_names_and_digests_may_be_escaped(self) -> None:
        answer = self.server.auth.request(
            "POST", f"/v2/escaped%2Fname/blobs/uploads/?digest={LAYER.replace(':', '%3A')}", b"layer"
        )
        self.assertEqual((answer.status, answer.headers["Location"]), (201, f"/v2/escaped/name/blobs/{LAYER}"))
        session = self.server.auth.request("POST", "/v2/escaped%2fname/blobs/uploads/").headers["Location"]
        self.assertEqual(
            self.server.auth.request("DELETE", session.replace("escaped/name", "escaped%2Fname")).status, 204
        )
        self.server.auth.push_image("escaped/name", "v1.0", b"layer")
        for client in (self.server.public, self.server.auth):
            for path in (
                "/v2/escaped%2Fname/manifests/v1.0",
                "/v2/escaped%2fname/manifests/v1%2E0",
                f"/v2/escaped%2Fname/blobs/{LAYER.replace(':', '%3A')}",
                f"/v2/escaped/name/blobs/{LAYER.replace(':', '%3a')}",
                f"/v2/escaped%2Fname/referrers/{ABSENT.replace(':', '%3A')}",
                "/v2/escaped%2Fname/tags/list",
            ):
                for method in ("GET", "HEAD"):
                    self.assertEqual(client.request(method, path).status, 200, (method, path))
        page = self.server.public.get("/r/escaped%2Fname/")
        self.assertEqual((page.status, page.headers["Location"]), (307, "/r/escaped/name/"))


class CrossOrigin(ListenerCase):
    """CORS: what is public can be read by pages of other sites, and nothing else can."""

    headers: Mapping[str, str] = {"Origin": "https://elsewhere.example"}

    def test_answers_of_public_can_be_read_by_every_page(self) -> None:
        found = [(PATHS[operation], 200) for operation in ("manifest", "blob", "tags")]
        for path, status in (*found, ("/v2/team/app/manifests/v2", 404), ("/v2/A/tags/list", 400)):
            for method in ("GET", "HEAD"):
                with self.subTest(path=path, method=method):
                    answer = self.server.public.request(method, path, headers=self.headers)
                    self.assertEqual((answer.status, answer.headers["Access-Control-Allow-Origin"]), (status, "*"))
                    exposed = {name.strip() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
                    self.assertLessEqual({"Docker-Content-Digest", "Link", "OCI-Filters-Applied"}, exposed)
                    self.assertNotIn("Access-Control-Allow-Credentials", answer.headers)

    def test_a_preflight_on_public_allows_reads(self) -> None:
        asked = {**self.headers, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "accept"}
        for operation in ("version", "catalog", "tags", "referrers", "manifest", "blob"):
            with self.subTest(operation):
                answer = self.server.public.request("OPTIONS", PATHS[operation], headers=asked)
                self.assertEqual((answer.status, answer.body), (204, b""))
                self.assertEqual(answer.headers["Access-Control-Allow-Origin"], "*")
                self.assertEqual(
                    {name.strip() for name in answer.headers["Access-Control-Allow-Methods"].split(",")},
                    {"GET", "HEAD", "OPTIONS"},
                )
                self.assertIn("accept", answer.headers["Access-Control-Allow-Headers"].lower())
                self.assertEqual(answer.headers.get_all("Access-Control-Allow-Origin"), ["*"])

    def test_a_preflight_on_auth_is_no_write(self) -> None:
        headers = {**self.headers, "Access-Control-Request-Method": "GET", "Sec-Fetch-Site": "cross-site"}
        self.assert_error(
            Client(self.server.addresses["auth"]).request("OPTIONS", PATHS["manifest"], headers=headers),
            401,
            "UNAUTHORIZED",
        )

    def test_auth_and_internal_can_be_read_by_no_page(self) -> None:
        nobody = Client(self.server.addresses["auth"])
        for client, path in (
            (self.server.auth, PATHS["manifest"]),
            (nobody, PATHS["manifest"]),
            (self.server.internal, "/metrics"),
        ):
            for method in ("GET", "OPTIONS"):
                answer = client.request(method, path, headers=self.headers)
                self.assertEqual([name for name in answer.headers if name.lower().startswith("access-control")], [])


class CrossSite(ListenerCase):
    """Writes that a page of another site makes with the password that the browser has stored."""

    def test_writes_of_other_sites_are_403_and_change_nothing(self) -> None:
        host = "{}:{}".format(*self.server.addresses["auth"])
        for name, value in (
            ("Origin", "https://evil.example"),
            ("Origin", f"http://{host}.evil.example"),
            ("Origin", f"http://evil.example/{host}"),
            ("Origin", "null"),
            ("Origin", ""),
            ("Origin", "http://127.0.0.1:1"),
            ("Sec-Fetch-Site", "cross-site"),
        ):
            for method in WRITES:
                with self.subTest(name=name, value=value, method=method):
                    path = PATHS["uploads"] if method == "POST" else PATHS["manifest"]
                    self.assert_error(self.server.auth.request(method, path, b"{}", {name: value}), 403, "DENIED")
        self.assertEqual(self.server.public.get(PATHS["manifest"]).status, 200)

    def test_writes_of_the_same_site_and_of_no_site_are_allowed(self) -> None:
        host = "{}:{}".format(*self.server.addresses["auth"])
        for headers in (
            {},
            {"Origin": f"http://{host}"},
            {"Origin": f"https://{host}", "Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
        ):
            with self.subTest(headers):
                self.assertEqual(self.server.auth.request("POST", PATHS["uploads"], headers=headers).status, 202)

    def test_reads_of_other_sites_are_answered(self) -> None:
        headers = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
        self.assertEqual(self.server.auth.get(PATHS["manifest"], headers).status, 200)
