"""Anonymous reading at the auth listener: Bearer tokens, the endpoint that gives them, and who may do what with which
of them.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
import unittest
from pathlib import Path
from urllib.parse import urlencode

from tests.support.logins import add_token, user_version
from tests.support.operations import AUTH_ALLOWS, PATHS, UNKNOWN_METHODS, requests
from tests.support.raw import basic, connected
from tests.support.server import PASSWORD, USER, Answer, Client, ServerTestCase, digest_of, image, running, vex
from vex.access.bearer import LIFETIME, MAX_TOKEN, Grant, Signer
from vex.access.identity import ANYONE, Identity, granted
from vex.errors import UNAVAILABLE, RegistryError
from vex.service.app import POLICIES

TOKEN = "/v2/_token"
SHARED = ("version", "ping", "search", "catalog", "tags", "referrers", "manifest", "blob")
READABLE = ("ping", "search", "catalog", "tags", "referrers", "manifest", "blob")
ALL = {"team/app": ("pull", "push", "delete")}


class OnePortCase(ServerTestCase):
    """A registry with anonymous reading, and one image."""

    flags: tuple[str, ...] = (
        "--anonymous-read",
        "yes",
        "--identity-tokens",
        "yes",
        "--failed-logins",
        "1000000",
        "--upload-sessions",
        "1000",
    )

    @classmethod
    def setUpClass(cls) -> None:
        """Push the image."""
        super().setUpClass()
        cls.server.auth.push_image("team/app", "v1", b"layer")

    def request(self, method: str, path: str, authorization: str = "", body: bytes = b"", **headers: str) -> Answer:
        """Send a request to the auth listener; "" sends no Authorization."""
        sent = {**headers, **({"Authorization": authorization} if authorization else {})}
        return Client(self.server.addresses["auth"]).request(method, path, body or None, sent)

    def token(self, *scopes: str, authorization: str = "", **parameters: str) -> dict[str, str]:
        """Get a token; returns the answer's document."""
        answer = self.request(
            "GET",
            f"{TOKEN}?{urlencode([('scope', scope) for scope in scopes] + list(parameters.items()))}",
            authorization,
        )
        self.assertEqual(answer.status, 200, answer)
        document: dict[str, str] = answer.json
        return document

    def bearer(self, *scopes: str, authorization: str = "") -> str:
        """Get a token; returns an Authorization field."""
        return f"Bearer {self.token(*scopes, authorization=authorization)['token']}"

    def post(self, **form: str) -> Answer:
        """Send the form of OAuth2."""
        return self.request(
            "POST", TOKEN, body=urlencode(form).encode(), **{"Content-Type": "application/x-www-form-urlencoded"}
        )

    def assert_challenge(self, answer: Answer, scope: str = "", error: str = "") -> None:
        """Check for a Bearer challenge of this listener."""
        host = "{}:{}".format(*self.server.addresses["auth"])
        more = f',scope="{scope}"' * bool(scope) + f',error="{error}"' * bool(error)
        self.assertEqual(
            (answer.status, answer.headers["WWW-Authenticate"]),
            (401, f'Bearer realm="http://{host}{TOKEN}",service="{host}"{more}'),
        )


class Authorization(OnePortCase):
    """(method, route, credentials): allow or deny."""

    def credentials(self) -> dict[str, tuple[str, dict[str, str]]]:
        """Return credentials by name, for each kind: what answers a write, "" for what the registry does, and
        Authorization fields.
        """
        data, version = self.server.data, user_version(self.server, USER)
        tokens = {
            "full": add_token(self.server, "full"),
            "reader": add_token(self.server, "reader", "--read-only"),
            "inside": add_token(self.server, "inside", "--repository", "team/*", "--expires", "1d"),
            "outside": add_token(self.server, "outside", "--repository", "team/apps*"),
            "gone": add_token(self.server, "gone"),
        }
        everything, own = (
            "repository:team/app:pull,push,delete",
            {name: basic(name, token) for name, token in tokens.items()},
        )
        gone = self.bearer(everything, authorization=own["gone"])
        vex("token", "delete", "gone", "--data-dir", str(data))
        foreign = self.server.directory
        valid = Signer(data).sign(Grant(USER, version, ALL))
        return {
            "everything": (
                "",
                {
                    "password": basic(),
                    "token": own["full"],
                    "token for its repositories": own["inside"],
                    "Bearer": self.bearer(everything, authorization=basic()),
                    "Bearer of all actions": self.bearer("repository:team/app:*", authorization=basic()),
                    "Bearer of a token": self.bearer("repository:other:pull", everything, authorization=own["inside"]),
                    "Bearer in lower case": self.bearer(everything, authorization=basic()).replace("Bearer", "bearer"),
                },
            ),
            "anyone": ("401", {"none": "", "Bearer of anyone": self.bearer(everything)}),
            "unscoped": (
                "401",
                {
                    "Bearer to pull": self.bearer("repository:team/app:pull", authorization=basic()),
                    "Bearer for nothing": self.bearer(authorization=basic()),
                    "Bearer for another repository": self.bearer(
                        "repository:team/app2:*", "repository:team:*", authorization=basic()
                    ),
                },
            ),
            "denied": (
                "403",
                {
                    "token to read": own["reader"],
                    "token for others": own["outside"],
                    "Bearer of a token to read": self.bearer(everything, authorization=own["reader"]),
                    "Bearer of a token for others": self.bearer(everything, authorization=own["outside"]),
                },
            ),
            "invalid": (
                "401",
                {
                    "wrong password": basic(password="wrong password"),
                    "wrong token": basic("full", tokens["full"][:-1] + "_"),
                    "token of another name": basic("reader", tokens["full"]),
                    "token as a Bearer": f"Bearer {tokens['full']}",
                    "token that was withdrawn": own["gone"],
                    "Bearer of that": gone,
                    "expired": "Bearer " + Signer(data, clock=lambda: 1_000_000).sign(Grant(USER, version, ALL)),
                    "signed by another": "Bearer " + Signer(foreign).sign(Grant(USER, version, ALL)),
                    "of an earlier password": "Bearer " + Signer(data).sign(Grant(USER, version - 1, ALL)),
                    "of nobody": "Bearer " + Signer(data).sign(Grant("nobody", 0, ALL)),
                    "refresh token": "Bearer " + Signer(data).sign(Grant(USER, version, None)),
                    "altered": f"Bearer {valid[:10]}{'A' if valid[10] != 'A' else 'B'}{valid[11:]}",
                    "without signature": f"Bearer {valid.partition('.')[0]}.",
                    "with half a signature": f"Bearer {valid[:-20]}",
                    "with more behind": f"Bearer {valid}=",
                    "nothing": "Bearer",
                    "x": "Bearer x",
                    "too long": f"Bearer {'x' * MAX_TOKEN}.{valid.partition('.')[2]}",
                    "not ASCII": "Bearer \u00e9",
                    "twice": f"Bearer {valid}, Bearer {valid}",
                    "another scheme": "Digest x",
                    "empty name": basic(user="", password=""),
                },
            ),
        }

    def test_every_route_and_method_with_credentials_of_every_kind(self) -> None:
        for kind, (refusal, fields) in self.credentials().items():
            for name, authorization in fields.items():
                for operation, method, path in requests():
                    # Each wrong password costs its time, and what is refused is refused before the method is looked at.
                    if method in UNKNOWN_METHODS[1:] or (kind == "invalid" and method not in ("GET", "POST", "DELETE")):
                        continue
                    with self.subTest(credentials=name, operation=operation, method=method):
                        answer = self.request(method, path, authorization)
                        allowed = AUTH_ALLOWS[operation].get(method)
                        if operation == "healthz" and method in AUTH_ALLOWS[operation]:
                            self.assertEqual(answer.status, 200)
                        elif method == "OPTIONS" and operation in SHARED:
                            self.assertEqual(answer.status, 204)
                        elif kind == "invalid":
                            self.assertEqual(answer.status, 401)
                        elif operation in READABLE and method in ("GET", "HEAD"):
                            self.assertEqual(answer.status, 200)
                        elif operation == "version" and allowed:
                            self.assertEqual(answer.status, 200 if authorization else 401)
                        elif allowed:
                            self.assertEqual(answer.status, int(refusal or allowed))
                        else:
                            self.assertIn(answer.status, (401, 403, 404, 405, 501))

    def test_nobody_writes_at_any_route_that_the_table_knows(self) -> None:
        known = {operation for operation, allowed in AUTH_ALLOWS.items() if allowed}
        self.assertEqual({route.op for route in POLICIES["auth"].routes}, known)

    def test_a_denied_write_says_why(self) -> None:
        for flags, pattern in (
            (("--read-only",), "the token why[0-9] only reads"),
            (("--repository", "other"), "is for the repositories other alone"),
        ):
            name = f"why{len(flags)}"
            answer = self.request("POST", PATHS["uploads"], basic(name, add_token(self.server, name, *flags)))
            self.assert_error(answer, 403, "DENIED")
            self.assertRegex(answer.json["errors"][0]["message"], pattern)

    def test_challenges_name_what_is_needed(self) -> None:
        for method, path, scope in (
            ("GET", "/v2/", ""),
            ("GET", "/v2", ""),
            ("POST", PATHS["uploads"], "repository:team/app:pull,push"),
            ("PUT", PATHS["manifest"], "repository:team/app:pull,push"),
            ("DELETE", PATHS["manifest"], "repository:team/app:pull,delete"),
            ("DELETE", PATHS["upload"], "repository:team/app:pull,push"),
            ("POST", '/v2/a"b/blobs/uploads/', ""),
        ):
            with self.subTest(method=method, path=path):
                self.assert_challenge(self.request(method, path), scope)
        self.assert_challenge(
            self.request("POST", PATHS["uploads"], self.bearer(authorization=basic())),
            "repository:team/app:pull,push",
            "insufficient_scope",
        )
        expired = Signer(self.server.data, clock=lambda: 1).sign(Grant("", 0, {}))
        self.assert_challenge(
            self.request("GET", PATHS["manifest"], f"Bearer {expired}"), "repository:team/app:pull", "invalid_token"
        )

    def test_a_token_without_the_action_gets_told_what_it_does_not_allow(self) -> None:
        scope, other = "repository:team/app:pull,push", self.bearer("repository:team/other:*", authorization=basic())
        for authorization, method, path, words, error in (
            (
                self.bearer("repository:team/app:pull", authorization=basic()),
                "POST",
                PATHS["uploads"],
                "not allow to push to team/app",
                "insufficient_scope",
            ),
            (
                self.bearer(scope, authorization=basic()),
                "DELETE",
                PATHS["manifest"],
                "not allow to delete from team/app",
                "insufficient_scope",
            ),
            (other, "GET", PATHS["upload"], "not allow to push to team/app", "insufficient_scope"),
            (self.bearer(scope), "POST", PATHS["uploads"], "needed to push to team/app", ""),
        ):
            with self.subTest(words):
                answer = self.request(method, path, authorization)
                self.assert_challenge(answer, "repository:team/app:pull,delete" if method == "DELETE" else scope, error)
                self.assertIn(words, answer.json["errors"][0]["message"])
                self.assertEqual("log in" in answer.json["errors"][0]["message"], not error)

    def test_a_blob_of_another_repository_is_held_for_those_alone_who_may_push(self) -> None:
        path = PATHS["blob"].replace("team/app", "team/held")
        reader, limited = (
            add_token(self.server, "hold-reader", "--read-only"),
            add_token(self.server, "hold-other", "--repository", "other/*"),
        )
        scope = "repository:team/held:pull,push"
        for authorization in (
            "",
            self.bearer(scope),
            basic("hold-reader", reader),
            basic("hold-other", limited),
            self.bearer(scope, authorization=basic("hold-reader", reader)),
            self.bearer("repository:team/held:pull", authorization=basic()),
        ):
            self.assertEqual(self.request("HEAD", path, authorization).status, 404)
        self.assertEqual(self.server.metric("vex_leases"), 0)
        self.assertEqual(self.request("HEAD", path, self.bearer(scope, authorization=basic())).status, 200)
        self.assertEqual(self.server.metric("vex_leases"), 1)

    def test_the_other_listeners_give_no_tokens_and_take_none(self) -> None:
        self.assertEqual(self.server.public.get(TOKEN).status, 404)
        self.assertEqual(self.server.public.request("POST", TOKEN, b"grant_type=password").status, 405)
        self.assertEqual(self.server.internal.get(TOKEN).status, 404)
        self.assertEqual(
            self.server.public.request(
                "POST", PATHS["uploads"], headers={"Authorization": self.bearer(authorization=basic())}
            ).status,
            405,
        )

    def test_pages_of_other_sites_read_what_needs_no_password(self) -> None:
        nobody, origin = Client(self.server.addresses["auth"]), {"Origin": "https://elsewhere.example"}
        for operation in READABLE:
            with self.subTest(operation):
                answer = nobody.get(PATHS[operation], origin)
                self.assertEqual((answer.status, answer.headers.get_all("Access-Control-Allow-Origin")), (200, ["*"]))
        challenge = nobody.get("/v2/", origin)
        self.assertEqual((challenge.status, challenge.headers["Access-Control-Allow-Origin"]), (401, "*"))
        self.assertIn("WWW-Authenticate", challenge.headers["Access-Control-Expose-Headers"])
        for path in (TOKEN, f"{PATHS['manifest']}-missing"):
            self.assertEqual(nobody.get(path, origin).headers["Access-Control-Allow-Origin"], "*")

    def test_a_preflight_for_a_read_is_answered_and_one_for_a_write_allows_nothing(self) -> None:
        nobody = Client(self.server.addresses["auth"])
        asked = {
            "Origin": "https://elsewhere.example",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        }
        asked["Sec-Fetch-Site"] = "cross-site"
        for path in (*(PATHS[operation] for operation in SHARED), TOKEN):
            with self.subTest(path):
                answer = nobody.request("OPTIONS", path, headers=asked)
                self.assertEqual((answer.status, answer.headers["Access-Control-Allow-Origin"]), (204, "*"))
                self.assertEqual(answer.headers["Access-Control-Allow-Methods"], "GET, HEAD, OPTIONS")
                self.assertIn("authorization", answer.headers["Access-Control-Allow-Headers"].lower())
                self.assertNotIn("Access-Control-Allow-Credentials", answer.headers)
        for path in (PATHS["uploads"], PATHS["upload"]):
            answer = nobody.request("OPTIONS", path, headers=asked)
            self.assertEqual((answer.status, answer.headers["Access-Control-Allow-Origin"]), (401, None))

    def test_pages_of_other_sites_read_no_answer_to_a_write_and_no_upload(self) -> None:
        for method, path in (("POST", PATHS["uploads"]), ("DELETE", PATHS["manifest"]), ("GET", PATHS["upload"])):
            self.assertNotIn("Access-Control-Allow-Origin", self.request(method, path, "").headers)

    def test_rights_are_those_of_the_name_that_an_escaped_path_means(self) -> None:
        token = basic("escaped", add_token(self.server, "escaped", "--repository", "team/*"))
        self.assertEqual(self.request("POST", "/v2/team%2Fescaped/blobs/uploads/", token).status, 202)
        self.assertEqual(self.request("POST", "/v2/team%2f..%2Fother/blobs/uploads/", token).status, 400)
        for name in ("other%2Fapp", "team%252Fapp", "%6fther"):
            self.assertIn(self.request("POST", f"/v2/{name}/blobs/uploads/", token).status, (400, 403))

    def test_writes_of_other_sites_are_refused_with_a_token_too(self) -> None:
        for path, authorization in (
            (PATHS["uploads"], self.bearer("repository:team/app:push", authorization=basic())),
            (TOKEN, ""),
        ):
            self.assert_error(self.request("POST", path, authorization, Origin="https://evil.example"), 403, "DENIED")


class Endpoint(OnePortCase):
    """The token endpoint."""

    def test_a_token_has_the_fields_that_clients_read(self) -> None:
        answer = self.request(
            "GET", f"{TOKEN}?service=x&account={USER}&client_id=docker&scope=repository:team/app:pull,push", basic()
        )
        self.assertEqual(answer.json["token"], answer.json["access_token"])
        self.assertEqual((answer.json["expires_in"], answer.json["scope"]), (LIFETIME, "repository:team/app:pull,push"))
        self.assertRegex(answer.json["issued_at"], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual(
            (answer.headers["Cache-Control"], answer.headers["Content-Type"]), ("no-store", "application/json")
        )
        self.assertNotIn("refresh_token", answer.json)

    def test_several_scopes_are_taken_as_parameters_and_in_one(self) -> None:
        wanted = "repository:a/b:pull,push", "repository:c:pull", "repository:d:*"
        expected = "repository:a/b:pull,push repository:c:pull repository:d:pull,push,delete"
        self.assertEqual(self.token(*wanted, authorization=basic())["scope"], expected)
        self.assertEqual(self.token(" ".join(wanted), authorization=basic())["scope"], expected)
        self.assertEqual(
            self.post(grant_type="password", username=USER, password=PASSWORD, scope=" ".join(wanted)).json["scope"],
            expected,
        )

    def test_anyone_gets_a_token_to_pull_alone(self) -> None:
        for scope in ("repository:a:pull,push", "repository:a:*", "repository:a:pull"):
            self.assertEqual(self.token(scope)["scope"], "repository:a:pull")
        self.assertEqual(self.token("repository:a:push,delete")["scope"], "")

    def test_the_form_gives_and_takes_refresh_tokens(self) -> None:
        form = {"service": "x", "client_id": "docker", "scope": "repository:team/app:pull,push"}
        self.assertNotIn(
            "refresh_token", self.post(grant_type="password", username=USER, password=PASSWORD, **form).json
        )
        refresh = self.post(
            grant_type="password", username=USER, password=PASSWORD, access_type="offline", **form
        ).json["refresh_token"]
        answer = self.post(grant_type="refresh_token", refresh_token=refresh, **form)
        self.assertEqual(answer.json["scope"], form["scope"])
        self.assertEqual(self.request("POST", PATHS["uploads"], f"Bearer {answer.json['access_token']}").status, 202)

    def test_a_refresh_token_ends_with_its_user_its_token_and_the_key(self) -> None:
        for command in ("user password dora", "user delete dora", "token rotate-key"):
            vex("user", "delete", "dora", "--data-dir", str(self.server.data))
            vex("user", "add", "dora", "--data-dir", str(self.server.data), text=PASSWORD + "\n")
            document = self.token(authorization=basic("dora"), offline_token="true")
            self.assertEqual(self.request("GET", "/v2/", f"Bearer {document['token']}").status, 200)
            self.assertEqual(self.post(grant_type="refresh_token", refresh_token=document["refresh_token"]).status, 200)
            self.assertEqual(
                vex(*command.split(), "--data-dir", str(self.server.data), text=PASSWORD + "2\n").returncode, 0
            )
            self.assertEqual(self.request("GET", "/v2/", f"Bearer {document['token']}").status, 401)
            answer = self.post(grant_type="refresh_token", refresh_token=document["refresh_token"])
            self.assert_error(answer, 401, "UNAUTHORIZED")
            self.assertIn("log in again", answer.json["errors"][0]["message"])

    def test_no_token_gives_another(self) -> None:
        for authorization in (self.bearer(), self.bearer("repository:team/app:pull", authorization=basic())):
            self.assertEqual(self.request("GET", f"{TOKEN}?scope=repository:team/app:push", authorization).status, 401)
        access = self.token(authorization=basic())["token"]
        self.assertEqual(self.post(grant_type="refresh_token", refresh_token=access).status, 401)

    def test_a_wrong_password_gets_the_challenge_of_basic_and_is_counted(self) -> None:
        before = self.server.metric("vex_logins_refused_total")
        for answer in (
            self.request("GET", TOKEN, basic(password="wrong password")),
            self.post(grant_type="password", username=USER, password="wrong password"),
            self.post(grant_type="password", username="", password=""),
        ):
            self.assert_error(answer, 401, "UNAUTHORIZED")
            self.assertEqual(answer.headers["WWW-Authenticate"], 'Basic realm="Vex", charset="UTF-8"')
        self.assertEqual(self.server.metric("vex_logins_refused_total") - before, 3)

    def test_a_name_that_nobody_can_have_is_a_wrong_login(self) -> None:
        for name in ("u" * 65, "u" * 3000, "two lines"):
            self.assert_error(
                self.post(grant_type="password", username=name, password="wrong password"), 401, "UNAUTHORIZED"
            )

    def test_what_is_no_scope_is_nothing(self) -> None:
        repositories = (
            "repository:a",
            "repository:A:push",
            "repository::push",
            "repository:a:fly",
            "repository:a/../b:push",
        )
        for scope in (*repositories, "", "x", "registry:catalog:*", "r" * 4000):
            self.assertEqual(self.token(scope, authorization=basic())["scope"], "")

    def test_a_client_that_does_what_challenges_say_pushes_mounts_and_deletes(self) -> None:
        # As go-containerregistry does, which crane and kaniko are made of.
        scopes, token = ["repository:crane/app:pull"], ""

        def send(method: str, path: str, body: bytes = b"") -> Answer:
            nonlocal token
            answer = self.request(method, path, token, body)
            if answer.status == 401:
                found = re.search('scope="([^"]+)"', answer.headers["WWW-Authenticate"])
                scopes[:0] = [found[1]] if found and found[1] not in scopes else []
                token = self.bearer(*scopes, authorization=basic())
                answer = self.request(method, path, token, body)
            return answer

        for method, path, body, status in (
            ("GET", "/v2/", b"", 200),
            (
                "POST",
                f"/v2/crane/app/blobs/uploads/?mount={PATHS['blob'].rpartition('/')[2]}&from=team/app&origin=elsewhere.example",
                b"",
                201,
            ),
            ("POST", f"/v2/crane/app/blobs/uploads/?digest={digest_of(b'{}')}", b"{}", 201),
            ("PUT", "/v2/crane/app/manifests/v1", json.dumps(image(b"layer")).encode(), 201),
            ("GET", "/v2/crane/app/tags/list", b"", 200),
            ("DELETE", "/v2/crane/app/manifests/v1", b"", 202),
        ):
            with self.subTest(method=method, path=path):
                self.assertEqual(send(method, path, body).status, status)
        self.assertEqual(
            scopes, ["repository:crane/app:pull,delete", "repository:crane/app:pull,push", "repository:crane/app:pull"]
        )

    def test_bad_requests_are_400(self) -> None:
        scopes = " ".join(f"repository:{'a' * 250}{n}:*" for n in range(40))
        for body in (
            b"",
            b"grant_type=authorization_code&code=x",
            b"grant_type=password&grant_type=password&username=a&password=b",
            b"grant_type=password&username=%zz",
            b"grant_type=password&username=\xff",
            b"x=" + b"y" * 20_000,
            urlencode({"grant_type": "password", "username": USER, "password": PASSWORD, "scope": scopes}).encode(),
        ):
            with self.subTest(body[:60]):
                self.assert_error(self.request("POST", TOKEN, body=body), 400, "BAD_REQUEST")

    def test_sixteen_long_names_fit_into_a_token(self) -> None:
        scope = " ".join(f"repository:{'a' * 251}{n}:*" for n in range(1000, 1016))
        answer = self.post(grant_type="password", username=USER, password=PASSWORD, scope=scope)
        self.assertEqual(self.request("GET", "/v2/", f"Bearer {answer.json['token']}").status, 200)

    def test_the_key_is_for_this_user_alone_and_in_no_backup(self) -> None:
        key = self.server.data / "token.key"
        self.assertEqual((key.stat().st_mode & 0o777, key.stat().st_size), (0o600, 32))
        with tempfile.TemporaryDirectory() as directory:
            made = vex("backup", f"{directory}/backup", "--data-dir", str(self.server.data))
            self.assertEqual(made.returncode, 0, made.stderr)
            content = key.read_bytes()
            self.assertFalse(
                [path for path in Path(directory).rglob("*") if path.is_file() and content in path.read_bytes()]
            )

    def test_a_damaged_key_gives_no_access(self) -> None:
        key = self.server.data / "token.key"
        good, token = key.read_bytes(), self.bearer(authorization=basic())
        try:
            key.write_bytes(b"")
            self.assert_error(self.request("GET", "/v2/", token), 503, "UNAVAILABLE")
            self.assertEqual(self.request("GET", "/v2/", basic()).status, 200)
        finally:
            key.write_bytes(good)
        self.assertEqual(self.request("GET", "/v2/", token).status, 200)


class WithoutIdentityTokens(ServerTestCase):
    """The default: no refresh token is given, and one that was given before is taken."""

    flags = ("--anonymous-read", "yes")

    def post(self, **form: str) -> Answer:
        """Send the form of OAuth2."""
        return Client(self.server.addresses["auth"]).request("POST", TOKEN, urlencode(form).encode())

    def test_neither_form_gives_one(self) -> None:
        by_form = self.post(grant_type="password", username=USER, password=PASSWORD, access_type="offline")
        for answer in (by_form, self.server.auth.get(f"{TOKEN}?offline_token=true")):
            self.assertEqual(answer.status, 200)
            self.assertIn("token", answer.json)
            self.assertNotIn("refresh_token", answer.json)

    def test_one_that_was_given_before_is_taken(self) -> None:
        given = Signer(self.server.data).sign(Grant(USER, user_version(self.server, USER), None))
        answer = self.post(grant_type="refresh_token", refresh_token=given, access_type="offline")
        self.assertEqual(answer.status, 200)
        self.assertNotIn("refresh_token", answer.json)


class Realms(unittest.TestCase):
    """Where clients are sent for a token."""

    def test_it_is_the_host_that_the_client_asked_and_nothing_that_is_no_host(self) -> None:
        with running("--anonymous-read", "yes") as server:
            for host, realm in (
                ("registry.example", "http://registry.example/v2/_token"),
                ("[::1]:8201", "http://[::1]:8201/v2/_token"),
                ("a!b", ""),
                ("a'b:80", ""),
                ("", ""),
            ):
                with self.subTest(host), connected(server.addresses["auth"]) as wire:
                    wire.send(f"GET /v2/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                    challenge = wire.answer().headers["WWW-Authenticate"]
                    found = re.match('Bearer realm="([^"]*)"', challenge)
                    self.assertEqual(found[1] if found else "", realm)
                    self.assertTrue(found or challenge.startswith("Basic "))

    def test_a_trusted_proxy_says_it(self) -> None:
        said = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "registry.example"}
        with running("--anonymous-read", "yes", "--trusted-proxies", "127.0.0.1") as server:
            challenge = Client(server.addresses["auth"]).get("/v2/", said).headers["WWW-Authenticate"]
            self.assertEqual(challenge, 'Bearer realm="https://registry.example/v2/_token",service="registry.example"')

    def test_public_url_gives_it(self) -> None:
        with running("--anonymous-read", "yes", "--public-url", "https://registry.example") as server:
            challenge = Client(server.addresses["auth"]).get("/v2/").headers["WWW-Authenticate"]
            self.assertEqual(challenge, 'Bearer realm="https://registry.example/v2/_token",service="registry.example"')
            # Where one address is enough, the web interface says so.
            page = server.public.get("/").body.decode()
            self.assertIn("docker push registry.example/", page)
            self.assertNotIn(f":{server.addresses['auth'][1]}", page)


class WithoutAnonymousReading(ServerTestCase):
    """The default: everything at the auth listener needs a password, and there are no Bearer tokens."""

    def test_bearer_tokens_are_neither_given_nor_taken(self) -> None:
        valid = f"Bearer {Signer(self.server.data).sign(Grant(USER, user_version(self.server, USER), ALL))}"
        for path in ("/v2/", TOKEN, PATHS["manifest"]):
            for authorization in ("", valid):
                answer = Client(self.server.addresses["auth"]).get(
                    path, {"Authorization": authorization} if authorization else {}
                )
                self.assertEqual(
                    (answer.status, answer.headers["WWW-Authenticate"]), (401, 'Basic realm="Vex", charset="UTF-8"')
                )
        self.assertEqual(self.server.auth.get(TOKEN).status, 404)

    def test_tokens_of_machines_work_and_are_limited(self) -> None:
        reader, limited = (
            add_token(self.server, "reader", "--read-only"),
            add_token(self.server, "limited", "--repository", "team/*"),
        )
        self.server.auth.push_image("team/app", "v1", b"layer")
        self.server.auth.push_image("other", "v1", b"layer")
        for name, token, method, path, status in (
            ("reader", reader, "GET", "/v2/", 200),
            ("reader", reader, "GET", "/v2/_catalog", 200),
            ("reader", reader, "GET", "/v2/other/manifests/v1", 200),
            ("reader", reader, "DELETE", "/v2/other/manifests/v1", 403),
            ("limited", limited, "GET", "/v2/", 200),
            ("limited", limited, "GET", "/v2/_catalog", 403),
            ("limited", limited, "GET", "/v2/other/manifests/v1", 403),
            ("limited", limited, "GET", "/v2/team/app/manifests/v1", 200),
            ("limited", limited, "POST", "/v2/other/blobs/uploads/", 403),
            (
                "limited",
                limited,
                "POST",
                f"/v2/team/new/blobs/uploads/?mount={PATHS['blob'].rpartition('/')[2]}&from=other",
                201,
            ),
        ):
            with self.subTest(name=name, method=method, path=path):
                self.assertEqual(
                    Client(self.server.addresses["auth"], name, token).request(method, path).status, status
                )


class Signing(unittest.TestCase):
    """Tokens and the key, with a clock."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.now = 1_000_000.0
        self.signer = Signer(Path(directory.name), clock=lambda: self.now)

    def test_an_access_token_is_valid_for_five_minutes(self) -> None:
        grant = Grant("alice", 7, {"team/app": ("pull",)})
        token = self.signer.sign(grant)
        self.now += 299
        self.assertEqual(json.dumps(self.signer.verify(token)), json.dumps(grant))
        self.now += 1
        self.assertIsNone(self.signer.verify(token))

    def test_an_access_token_of_a_clock_that_was_ahead_is_not_valid_meanwhile(self) -> None:
        today = self.now
        self.now += 365 * 24 * 3600
        token = self.signer.sign(Grant("alice", 7, {}))
        for now, is_valid in ((today, False), (self.now - 61, False), (self.now - 60, True), (self.now + 299, True)):
            self.now = now
            self.assertEqual(self.signer.verify(token) is not None, is_valid, now)

    def test_a_token_says_when_it_was_issued(self) -> None:
        text = self.signer.sign(Grant("alice", 7, {})).partition(".")[0]
        self.assertEqual(json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))["issued"], self.now)

    def test_a_refresh_token_is_valid_until_the_key_changes(self) -> None:
        token = self.signer.sign(Grant("alice", 7, None))
        self.now += 10 * 365 * 24 * 3600
        self.assertEqual(self.signer.verify(token), Grant("alice", 7, None))
        self.signer.rotate()
        self.assertIsNone(self.signer.verify(token))

    def test_every_change_of_a_token_is_noticed(self) -> None:
        token = self.signer.sign(Grant("alice", 7, {}))
        for at in range(len(token)):
            for character in "A.-=":
                if token[at] != character:
                    self.assertIsNone(self.signer.verify(token[:at] + character + token[at + 1 :]))

    def test_a_key_of_another_length_is_refused(self) -> None:
        path = self.signer._path
        for content in (b"", b"x" * 31, b"x" * 33):
            path.write_bytes(content)
            with self.assertRaises(RegistryError) as caught:
                self.signer.sign(Grant("", 0, {}))
            self.assertEqual(caught.exception.kind, UNAVAILABLE)


class Rights(unittest.TestCase):
    """What of the scopes that are asked for is granted."""

    def test_a_token_gets_what_it_may(self) -> None:
        scopes = ("repository:team/app:*", "repository(plugin):team/app:pull", "repository:other:pull,push")
        every = ("pull", "push", "delete")
        self.assertEqual(granted(Identity("a"), scopes), {"team/app": every, "other": ("pull", "push")})
        self.assertEqual(granted(Identity("a", read_only=True), scopes), {"team/app": ("pull",), "other": ("pull",)})
        self.assertEqual(granted(Identity("a", repositories="team/*"), scopes), {"team/app": every, "other": ("pull",)})
        self.assertEqual(granted(ANYONE, scopes), {"team/app": ("pull",), "other": ("pull",)})

    def test_patterns_match_the_whole_name_and_slashes_too(self) -> None:
        for pattern, yes, no in (
            ("team/*", ("team/app", "team/a/b"), ("team", "teams/app", "my/team/app", "Team/app")),
            ("team/app", ("team/app",), ("team/apps", "team/app/x", "teamxapp")),
            ("*/app", ("team/app", "a/b/app"), ("app", "team/app2")),
            ("a.b-*", ("a.b-c",), ("axb-c",)),
            ("*", ("a", "a/b"), ()),
        ):
            identity = Identity("a", repositories=pattern)
            self.assertEqual([name for name in (*yes, *no) if not identity.denial(name, "push")], list(yes), pattern)
