"""The web interface against its pushers: every payload in every field that they control, and the pages read as a
browser does.

A page is safe when it has the same elements and attributes as with harmless text, and shows the payload as text.
"""

from __future__ import annotations

import json
import unittest
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.support.in_process import Pushed
from tests.support.page import Page, PagesTestCase
from tests.support.server import OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, descriptor
from tests.support.tars import archive, member
from vex.web import markup

HARMLESS = "harmless"
# What may not become anything but text, each with what a reader sees of it.
PAYLOADS = {
    "<script>alert(1)</script>": "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>': '"><img src=x onerror=alert(1)>',
    '" onx="1': '" onx="1',
    "' onx='1": "' onx='1",
    "</title></code></td></dd></pre><b>": "</title></code></td></dd></pre><b>",
    "javascript:alert(1)": "javascript:alert(1)",
    "data:text/html,<b>": "data:text/html,<b>",
    "vbscript:x": "vbscript:x",
    'https://example.org/" onx=1': 'https://example.org/" onx=1',
    "https://example.org/ x": "https://example.org/ x",
    "http://": "http://",
    "//example.org/": "//example.org/",
    "safe\u202egnp.exe": "safe\\u{202e}gnp.exe",
    "a\u2066b\u200fc\u061cd": "a\\u{2066}b\\u{200f}c\\u{61c}d",
    "nul\0esc\x1b[31m": "nul\\u{0}esc\\u{1b}[31m",
    "\u2028line\ufeff": "\\u{2028}line\\u{feff}",
    "&lt;b&gt; &#x3c;b>": "&lt;b&gt; &#x3c;b>",
    "$title ${title} $$": "$title ${title} $$",
    "<!-- --><![CDATA[": "<!-- --><![CDATA[",
}


class Planted(NamedTuple):
    """What was pushed with a payload in each field."""

    image: Pushed
    platforms: Pushed
    artifact: Pushed
    layer: str


class WebTestCase(PagesTestCase):
    """What a pusher controls, on a registry in this process."""

    def plant(self, repository: str, text: str, prefix: str = "") -> Planted:
        """Push an image, an index and an artifact with the text in each field that takes any, under tags with this
        prefix.
        """
        # What a name of a file can be.
        file = text.replace("\0", "").replace("/", "")
        layer = archive(member(f"dir/{file}"), member(f"dir/.wh.{file}"), member("link", b"2", linkname=file))
        config = json.dumps(_config(text)).encode()
        annotations = {
            text: text,
            "org.opencontainers.image.title": text,
            "in-toto.io/predicate-type": text,
            "org.opencontainers.image.url": text,
        }
        fields = {"annotations": annotations}
        self.push_blob(repository, layer)
        self.push_blob(repository, config)
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(config, OCI_CONFIG),
            "layers": [{**descriptor(layer, OCI_LAYER), "annotations": annotations}],
            **fields,
        }
        image = self.push_manifest(repository, f"{prefix}image", document)
        platform = {"os": text, "architecture": text, "variant": text}
        child = {
            "mediaType": OCI_MANIFEST,
            "digest": image.digest,
            "size": image.size,
            "platform": platform,
            "annotations": annotations,
        }
        attestation = {
            **child,
            "annotations": {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": text},
        }
        index_document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child, attestation], **fields}
        index = self.push_manifest(repository, f"{prefix}index", index_document, OCI_INDEX)
        self.push_blob(repository, b"{}")
        artifact = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            # Media types are checked when they are pushed: this is the worst that their grammar allows.
            "artifactType": "application/x!#$&^_.+-title",
            "config": descriptor(b"{}", OCI_EMPTY),
            "layers": [{**descriptor(layer, "text/x!#$&^_.+-title"), "annotations": annotations}],
            "subject": {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": image.size},
            **fields,
        }
        planted = Planted(
            image, index, self.push_manifest(repository, f"{prefix}artifact", artifact), document["layers"][0]["digest"]
        )
        # The history of the tags, in which nothing is free text, would grow with each of those that are planted.
        with self.site.database.write() as tx:
            tx.execute("DELETE FROM tag_change")
        return planted


def _config(text: str) -> dict[str, Any]:
    return {
        "os": text,
        "architecture": text,
        "variant": text,
        "created": text,
        "author": text,
        "config": {
            "Env": [f"{text}={text}", f"A={text}"],
            "Labels": {text: text, "url": text},
            "Entrypoint": [text],
            "Cmd": [text],
            "User": text,
            "WorkingDir": text,
            "ExposedPorts": {text: {}},
            "Volumes": {text: {}},
            "StopSignal": text,
            "Shell": [text],
            "Healthcheck": {"Test": ["CMD-SHELL", text]},
        },
        "history": [
            {"created_by": text, "created": text},
            {"created_by": text, "empty_layer": True},
            {"comment": text, "empty_layer": True},
        ],
    }


def _paths(repository: str, planted: Planted) -> list[str]:
    top = f"/r/{repository}/"
    manifests = [f"{top}m/{pushed.digest}/" for pushed in (planted.image, planted.platforms, planted.artifact)]
    return [
        "/",
        top,
        *manifests,
        f"{manifests[0]}?tag=image",
        *(f"{path}json/" for path in manifests),
        f"{manifests[0]}layer/{planted.layer}/",
    ]


class Payloads(WebTestCase):
    def test_every_field_shows_a_payload_as_text_and_changes_nothing_else(self) -> None:
        paths = _paths("app", self.plant("app", HARMLESS))
        expected = [self.page(path).elements for path in paths]
        for payload, shown in PAYLOADS.items():
            with self.subTest(payload):
                planted = self.plant("app", payload)
                for path, elements in zip(_paths("app", planted), expected):
                    page = self.page(path)
                    self.assertEqual(page.elements, elements, path)
                    if path.count("/") > 4 and "/json/" not in path and "/layer/" not in path:
                        self.assertIn(shown, page.text, path)

    def test_names_of_files_are_shown_as_text(self) -> None:
        for payload, shown in PAYLOADS.items():
            if "\0" not in payload and "/" not in payload:
                planted = self.plant("app", payload)
                page = self.page(f"/r/app/m/{planted.image.digest}/layer/{planted.layer}/")
                self.assertIn(f"dir/{shown}", page.text)
                self.assertIn(f"→ {shown}", page.text)

    def test_the_json_of_a_manifest_is_shown_as_text(self) -> None:
        planted = self.plant("app", "<script>alert(1)</script>")
        page = self.page(f"/r/app/m/{planted.image.digest}/json/")
        self.assertIn('"org.opencontainers.image.title": "<script>alert(1)</script>"', page.text)

    def test_comparisons_show_payloads_as_text(self) -> None:
        before = self.plant("app", HARMLESS * 1000, "before-").image.digest
        expected = self.page(f"/r/app/diff/{before}...{self.plant('app', 'other').image.digest}/").elements
        for payload, shown in PAYLOADS.items():
            with self.subTest(payload):
                page = self.page(f"/r/app/diff/{before}...{self.plant('app', payload).image.digest}/")
                self.assertEqual(page.elements, expected)
                self.assertIn(shown, page.text)

    def test_web_addresses_become_links_that_tell_nothing_about_here(self) -> None:
        self.plant("app", HARMLESS)
        planted = self.plant("app", "https://example.org/a?b=1&c=2")
        page = self.page(f"/r/app/m/{planted.image.digest}/")
        self.assertIn(("a", ("href", "rel")), page.elements)
        self.assertIn("https://example.org/a?b=1&c=2", page.values)


class Queries(WebTestCase):
    def test_the_query_is_shown_as_text_or_not_at_all(self) -> None:
        planted = self.plant("app", HARMLESS)
        manifest = f"/r/app/m/{planted.image.digest}/"
        for payload in ("%3Cscript%3E", "%22%20onx=%221", "javascript:x", "//example.org", "%E2%80%AE"):
            for name in ("q", "sort", "page", "others", "tag"):
                for path in ("/", "/r/app/", manifest, f"/r/app/m/{planted.platforms.digest}/"):
                    with self.subTest(path=path, name=name, payload=payload):
                        self.page(f"{path}?{name}={payload}")
            self.page(f"/r/app/m/{planted.platforms.digest}/image.tar?platform={payload}", 400)
            self.page(f"{manifest}?compare={payload}", 400)

    def test_a_page_of_any_number_is_the_last_one_at_most(self) -> None:
        self.plant("app", HARMLESS)
        for number in ("0", "-1", "2", "999999999", "9" * 30, "1e9", "٣", "x", ""):
            page = self.page(f"/r/app/?page={number}" if number != "٣" else "/r/app/?page=%D9%A3")
            self.assertIn("docker pull registry.test:8200/app:image", page.text)

    def test_a_host_that_is_none_is_not_repeated(self) -> None:
        self.plant("app", HARMLESS)
        for host in ("x'y", "a;id", "a&b", "$id", "(id)", "-", "a!b:80", "%41"):
            page = self.page("/r/app/", host=host)
            self.assertIn("docker pull localhost/app:image", page.text, host)


class Headers(WebTestCase):
    def test_pages_allow_nothing_but_their_own_style_and_script(self) -> None:
        planted = self.plant("app", HARMLESS)
        for path in [*_paths("app", planted), "/static/nothing.css", "/r/nothing/"]:
            headers = dict(self.respond(path).headers)
            policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
            self.assertEqual(
                (policy.pop("default-src"), policy.pop("frame-ancestors"), policy.pop("base-uri")),
                ("'none'", "'none'", "'none'"),
            )
            self.assertEqual(set(policy.values()), {"'self'"})
            self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
            self.assertEqual(headers["Content-Type"], "text/html; charset=utf-8")

    def test_an_archive_is_stored_and_not_shown(self) -> None:
        planted = self.plant("app", HARMLESS)
        headers = dict(self.respond(f"/r/app/m/{planted.image.digest}/image.tar").headers)
        self.assertEqual((headers["Content-Type"], headers["X-Content-Type-Options"]), ("application/x-tar", "nosniff"))
        self.assertEqual(headers["Content-Security-Policy"], "sandbox")
        self.assertTrue(headers["Content-Disposition"].startswith('attachment; filename="app-'))

    def test_redirects_stay_here(self) -> None:
        planted = self.plant("app", HARMLESS)
        for path in ("/r/app", f"/r/app/m/{planted.image.digest}"):
            response = self.respond(path)
            self.assertEqual(response.status, 307)
            self.assertTrue(dict(response.headers)["Location"].startswith("/r/app/"))
        for path in (
            "/r//evil.example",
            "/r/app//",
            "/r/..",
            "/r/%2e%2e/",
            "/r/app%0d%0aSet-Cookie:x",
            "/r/APP",
            f"/r/app/m/{planted.image.digest}x/",
        ):
            self.assertIn(self.respond(path).status, (400, 404), path)


class Configs(WebTestCase):
    def push(self, config: bytes) -> Page:
        pushed = self.push_image("app", "v1", archive(member("file")), config=config)
        return self.page(f"/r/app/m/{pushed.digest}/")

    def test_a_config_of_more_than_one_mebibyte_is_said_to_be_too_large(self) -> None:
        page = self.push(json.dumps({"os": "linux", "architecture": "amd64", "author": "a" * 2**20}).encode())
        self.assertIn("too many to be shown here", page.text)
        self.assertNotIn("linux/amd64", page.text)

    def test_a_config_that_is_no_json_object_is_said_to_be_none(self) -> None:
        for config in (b"hello", b"[]", b"", b'{"a":', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100 + b"1" + b"}" * 100):
            with self.subTest(config[:20]):
                self.assertIn("not a JSON object", self.push(config).text)

    def test_fields_of_other_types_are_left_out(self) -> None:
        values: Sequence[object] = (None, True, 1, 1.5, "text", [], [1], ["x", 2], {}, {"a": 1}, [[]], "\ud800", 10**25)
        for value in values:
            with self.subTest(value):
                fields = dict.fromkeys(_config("")["config"], value)
                config = {**dict.fromkeys(_config(""), value), "config": fields}
                self.assertIn("Layers", self.push(json.dumps(config).encode()).text)
                health = {"Test": value, "Interval": value, "Timeout": value, "Retries": value}
                steps = [{"created_by": value, "empty_layer": value, "comment": value}, value]
                config = {"os": "linux", "architecture": "arm64", "config": {"Healthcheck": health}, "history": steps}
                self.assertIn("linux/arm64", self.push(json.dumps(config).encode()).text)

    def test_integers_of_thousands_of_digits_and_duplicate_fields_are_read(self) -> None:
        self.assertIn(
            "linux/s390x",
            self.push(b'{"os":"linux","os":"linux","architecture":"s390x","n":' + b"9" * 5000 + b"}").text,
        )


class MarkupTypes(unittest.TestCase):
    def test_only_the_module_makes_markup_and_addresses(self) -> None:
        with self.assertRaises(TypeError):
            markup.Markup("<b>", None)
        with self.assertRaises(TypeError):
            markup.Url("javascript:x", None)

    def test_text_where_an_address_belongs_is_refused(self) -> None:
        links = markup.Templates("links.html")
        with self.assertRaises(TypeError):
            links("link", url="/r/app/", text="x")
        self.assertEqual(str(links("link", url=markup.local("/r/app/"), text="<b>")), '<a href="/r/app/">&lt;b&gt;</a>')

    def test_only_http_and_https_lead_to_other_places(self) -> None:
        for text in ("http://example.org", "https://example.org:8443/a?b=c#d", "HTTPS://EXAMPLE.ORG/"):
            self.assertIsNotNone(markup.external(text), text)
        refused = [
            *(
                "javascript:alert(1)",
                "data:text/html,x",
                "ftp://example.org",
                "//example.org",
                "/path",
                "http:/x",
                "http://",
                "example.org",
                "mailto:a@b",
            ),
            *(
                " http://example.org",
                "http://example.org/\n",
                "http://exa mple.org",
                "java\nscript:x",
                "http://example.org/\u202e",
                "http://[",
                "http://é.org",
            ),
        ]
        for text in refused:
            self.assertIsNone(markup.external(text), text)

    def test_a_path_that_leaves_the_registry_is_refused(self) -> None:
        for path in ("//example.org", "/\\example.org", "example.org", "javascript:x", ""):
            with self.assertRaises(ValueError):
                markup.local(path)
