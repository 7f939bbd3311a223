"""The web interface in a real browser: headless Chromium, with real images built by buildah and pushed by skopeo."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit

from tests.support.images import tar_of
from tests.support.programs import require
from tests.support.registries import ProgramTestCase, hosts, require_root, run
from tests.support.server import OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST, PASSWORD, USER, descriptor
from tests.support.webdriver import Browser, browsing

ARCHITECTURES = ("amd64", "arm64")
# WebDriver's code for the Enter key (W3C WebDriver, "Keyboard Actions").
ENTER = "\ue007"


class BrowserTests(ProgramTestCase):
    """One server and one browser for all tests."""

    browser: Browser

    @classmethod
    def setUpClass(cls) -> None:
        """Build and push what is looked at."""
        require_root()
        for program in ("buildah", "skopeo"):
            require(program, program)
        super().setUpClass()
        context = browsing()
        cls.browser = context.__enter__()
        cls.addClassCleanup(context.__exit__, None, None, None)
        cls.images = {architecture: cls.build(architecture) for architecture in ARCHITECTURES}
        cls.index = cls.push_index()
        cls.push_referrer()
        for number in range(3):
            cls.server.auth.push_image(f"other/number-{number}", "v1", b"layer")

    images: dict[str, str]
    index: str

    @classmethod
    def build(cls, architecture: str) -> str:
        """Build an image of two layers with buildah, push it with skopeo, and return its digest."""
        storage = {"CONTAINERS_STORAGE_CONF": f"{cls.directory}/storage.conf"}
        settings = f'[storage]\ndriver = "vfs"\ngraphroot = "{cls.directory}/graph"\nrunroot = "{cls.directory}/run"\n'
        (cls.directory / "storage.conf").write_text(settings)
        (cls.directory / "files.tar").write_bytes(tar_of({"srv/hello": b"hello " * 100, f"srv/{architecture}": b"x"}))

        def buildah(*arguments: str) -> str:
            return run(require("buildah", "buildah"), *arguments, environment=storage).stdout.strip()

        container = buildah("from", "--arch", architecture, "scratch")
        buildah("add", "--add-history", container, str(cls.directory / "files.tar"), "/")
        buildah(
            "config",
            "--arch",
            architecture,
            "--cmd",
            "serve",
            "--env",
            "GREETING=hello",
            "--label",
            "org.example.team=web",
            "--port",
            "80/tcp",
            container,
        )
        buildah("commit", "--format", "oci", container, f"oci:{cls.directory}/layout:{architecture}")
        target = f"docker://{hosts(cls.server)[0]}/team/app:{architecture}"
        source = f"oci:{cls.directory}/layout:{architecture}"
        run(require("skopeo", "skopeo"), "copy", "--dest-creds", f"{USER}:{PASSWORD}", cls.tls("dest-"), source, target)
        return cls.server.public.get(f"/v2/team/app/manifests/{architecture}").headers["Docker-Content-Digest"]

    @classmethod
    def push_index(cls) -> str:
        """Push an index of the images, with an attestation as BuildKit makes it; returns its digest."""
        children: list[dict[str, Any]] = []
        for architecture, digest in cls.images.items():
            content = cls.server.public.get(f"/v2/team/app/manifests/{digest}").body
            children.append(
                {**descriptor(content, OCI_MANIFEST), "platform": {"os": "linux", "architecture": architecture}}
            )
        statement, nothing = (
            b'{"predicateType": "https://slsa.dev/provenance/v1"}',
            b'{"os": "unknown", "architecture": "unknown"}',
        )
        for blob in (statement, nothing):
            cls.server.auth.push_blob("team/app", blob)
        layer = {
            **descriptor(statement, "application/vnd.in-toto+json"),
            "annotations": {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"},
        }
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(nothing, OCI_CONFIG),
            "layers": [layer],
        }
        cls.server.auth.push_manifest("team/app", "", document)
        annotations = {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": cls.images["amd64"],
        }
        platform = {"os": "unknown", "architecture": "unknown"}
        children.append(
            {
                **descriptor(json.dumps(document).encode(), OCI_MANIFEST),
                "platform": platform,
                "annotations": annotations,
            }
        )
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
        for tag in ("latest", "v1"):
            digest = cls.server.auth.push_manifest("team/app", tag, index, OCI_INDEX)
        return digest

    @classmethod
    def push_referrer(cls) -> None:
        """Push an SBOM of the index."""
        for blob in (b"{}", b'{"spdxVersion": "SPDX-2.3"}'):
            cls.server.auth.push_blob("team/app", blob)
        bill = {
            **descriptor(b'{"spdxVersion": "SPDX-2.3"}', "application/spdx+json"),
            "annotations": {"org.opencontainers.image.title": "sbom.json"},
        }
        subject = {"mediaType": OCI_INDEX, "digest": cls.index, "size": 1}
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(b"{}", OCI_EMPTY),
            "layers": [bill],
            "subject": subject,
        }
        cls.server.auth.push_manifest("team/app", "", {**document, "artifactType": "application/spdx+json"})

    def setUp(self) -> None:
        self.base = self.server.urls["public"]
        self.host = hosts(self.server)[1]
        self.browser.resize(1280, 900)
        self.browser.prefer("light")
        self.browser.log("browser")
        self.browser.requests()
        self.addCleanup(self.check_quiet)

    def check_quiet(self) -> None:
        """Check that no page complained, and that none asked another host for anything."""
        self.assertEqual(self.browser.log("browser"), [])
        asked = {urlsplit(url).netloc for url in self.browser.requests() if not url.startswith("data:,")}
        self.assertLessEqual(asked, {self.host})

    def open(self, path: str) -> None:
        self.browser.open(self.base + path)

    def names(self) -> list[str]:
        return [element.text for element in self.browser.find_all("#list .name")]

    def paths(self) -> list[str]:
        """Return one address of each kind of page."""
        layer = self.server.public.get(f"/v2/team/app/manifests/{self.images['amd64']}").json["layers"][0]["digest"]
        image, index = f"/r/team/app/m/{self.images['amd64']}/", f"/r/team/app/m/{self.index}/"
        artifact = self.server.public.get(f"/v2/team/app/referrers/{self.index}").json["manifests"][0]["digest"]
        diff = f"/r/team/app/diff/{self.images['amd64']}...{self.images['arm64']}/"
        more = [
            f"/r/team/app/m/{artifact}/",
            diff,
            "/r/team/app/history:v1/",
            "/?q=zzz",
            "/help/",
            "/help/metrics/",
            "/help/scaling/",
        ]
        return ["/", "/r/team/", "/r/team/app/", image, f"{image}json/", f"{image}layer/{layer}/", index, *more]

    def browse(self) -> None:
        """Follow links from the first page to the files of a layer, and to a comparison."""
        self.open("/")
        self.browser.link("app").follow()
        self.assertEqual(urlsplit(self.browser.url).path, "/r/team/app/")
        self.browser.link("latest").follow()
        self.assertIn("with provenance", self.browser.find("#main").text)
        self.assertIn("SBOM", self.browser.find("#main").text)
        self.browser.link("linux/arm64").follow()
        self.assertIn("org.example.team", self.browser.find("#main").text)
        self.browser.link("Files").follow()
        self.assertIn("srv/hello", self.browser.find(".entries").text)
        self.browser.back()
        self.browser.find("#compare").write("amd64")
        self.browser.find("#compare").write(ENTER)
        self.browser.wait(
            "document.querySelector('h1').textContent === 'Comparison' && document.readyState === 'complete'"
        )
        self.assertIn("Platform", self.browser.find(".change").text)

    def test_one_can_browse_from_the_first_page_to_a_layer(self) -> None:
        self.browse()

    def test_everything_works_without_javascript(self) -> None:
        with browsing("--blink-settings=scriptEnabled=false") as plain:
            plain.open(f"{self.base}/")
            plain.link("app").follow()
            plain.find("#q").write("AMD")
            plain.find("form button").follow()
            self.assertEqual([element.text for element in plain.find_all("#list .name")], ["amd64"])
            plain.back()
            plain.link("Tag").follow()
            self.assertEqual(
                [element.text for element in plain.find_all("#list .name")], ["amd64", "arm64", "latest", "v1"]
            )
            plain.link("latest").follow()
            plain.link("linux/amd64").follow()
            self.assertEqual(plain.find_all(".copy button"), [])
            self.assertIn(f"docker pull {self.host}/team/app:amd64", plain.find("#main").text)
            plain.link("Files").follow()
            self.assertIn("srv/hello", plain.find(".entries").text)
            self.assertEqual(plain.log("browser"), [])

    def test_lists_are_filtered_while_one_types(self) -> None:
        self.open("/")
        self.browser.type("/")
        self.assertTrue(self.browser.run("return document.activeElement.id === 'q'"))
        self.browser.type("number-1")
        self.browser.wait("document.querySelectorAll('#list .name').length === 1")
        self.assertEqual(self.names(), ["number-1"])
        self.browser.wait("location.search.includes('number-1')")

    def test_what_the_filter_brings_can_be_copied(self) -> None:
        self.open("/r/team/app/")
        self.browser.find("#q").write("arm")
        self.browser.wait("document.querySelectorAll('#list .name').length === 1")
        self.assertEqual(len(self.browser.find_all("#list .copy")), len(self.browser.find_all("#list .copy button")))

    def test_lists_are_sorted_by_their_headings(self) -> None:
        self.open("/?q=number")
        self.assertEqual(self.names(), ["number-0", "number-1", "number-2"])
        self.browser.find("th:first-child a").follow()
        self.assertEqual(self.names(), ["number-2", "number-1", "number-0"])
        self.assertEqual(self.browser.find("th:first-child").attribute("aria-sort"), "descending")

    def copied(self, button: str) -> str:
        """Press a copy button, and return what is then on the clipboard."""
        element = self.browser.find(button)
        element.click()
        self.browser.wait("arguments[0].textContent === 'Copied'", element.reference)
        return str(self.browser.run("return navigator.clipboard.readText()"))

    def test_commands_and_digests_are_copied_whole(self) -> None:
        self.browser.devtools("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        self.open("/r/team/app/?q=v1")
        self.assertEqual(self.copied("#list .facts .copy[data-copy] button"), self.index)
        self.open(f"/r/team/app/m/{self.images['arm64']}/?tag=arm64")
        self.assertEqual(self.copied(".commands .copy button"), f"docker pull {self.host}/team/app:arm64")
        self.assertEqual(self.browser.find("[role=status]").attribute("role"), "status")

    def test_commands_are_copied_without_a_secure_context_too(self) -> None:
        # As on another machine over plain HTTP, where browsers have no navigator.clipboard.
        self.browser.devtools("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        self.open("/r/team/app/")
        self.browser.run(
            "window.kept = navigator.clipboard; Object.defineProperty(navigator, 'clipboard', {value: undefined,"
            " configurable: true})"
        )
        button = self.browser.find("#list .copy button")
        button.click()
        self.browser.wait("document.querySelector('#list .copy button').textContent === 'Copied'")
        self.assertEqual(
            self.browser.run("return window.kept.readText()"), self.browser.find("#list .copy").attribute("data-copy")
        )

    def test_a_digest_is_selected_whole_by_one_click(self) -> None:
        self.open(f"/r/team/app/m/{self.index}/")
        self.browser.find("dd .copy code").click()
        self.assertEqual(self.browser.run("return getSelection().toString()"), self.index)

    def test_both_colour_schemes_have_contrast(self) -> None:
        for scheme in ("light", "dark"):
            self.browser.prefer(scheme)
            for path in self.paths():
                self.open(path)
                with self.subTest(scheme=scheme, path=path):
                    # WCAG 2.2 AA, 1.4.3
                    self.assertEqual(self.browser.run(_LOW_CONTRAST), [])
        backgrounds = {}
        for scheme in ("light", "dark"):
            self.browser.prefer(scheme)
            backgrounds[scheme] = self.browser.run("return getComputedStyle(document.body).backgroundColor")
        self.assertNotEqual(backgrounds["light"], backgrounds["dark"])

    def test_no_page_scrolls_sideways_at_360_pixels(self) -> None:
        self.browser.resize(360, 740)
        for path in self.paths():
            self.open(path)
            with self.subTest(path):
                self.assertLessEqual(self.browser.run("return document.documentElement.scrollWidth"), 360)
                self.assertEqual(self.browser.run(_PAST_THE_EDGE), [])

    def test_nothing_moves_while_a_page_loads(self) -> None:
        for path in self.paths():
            self.open(path)
            with self.subTest(path):
                self.assertEqual(self.browser.finish(_LAYOUT_SHIFT), 0)

    def test_headings_labels_and_landmarks_are_there(self) -> None:
        for path in self.paths():
            self.open(path)
            with self.subTest(path):
                self.assertEqual(self.browser.run(_NOT_ACCESSIBLE), [])

    def test_the_keyboard_reaches_the_content_first_and_shows_where_it_is(self) -> None:
        self.open("/")
        self.browser.type("\ue004")
        self.assertEqual(self.browser.run("return document.activeElement.textContent"), "Skip to content")
        self.browser.type("\ue004")
        self.assertNotEqual(self.browser.run("return getComputedStyle(document.activeElement).outlineStyle"), "none")

    def test_screenshots_of_every_page_can_be_kept(self) -> None:
        directory = os.environ.get("VEX_TEST_SCREENSHOTS")
        if not directory:
            self.skipTest("set VEX_TEST_SCREENSHOTS to a directory to look at the pages")
        for number, path in enumerate(self.paths()):
            for scheme in ("light", "dark"):
                for width in (360, 1280):
                    self.browser.prefer(scheme)
                    self.browser.resize(width, 900)
                    self.open(path)
                    self.browser.screenshot(f"{directory}/{number:02}-{scheme}-{width}.png")


_LOW_CONTRAST = """
const channels = (text) => text.match(/[0-9.]+/g).map(Number);
const luminance = ([red, green, blue]) => {
  const part = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  return 0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue);
};
const background = (element) => {
  for (; element; element = element.parentElement) {
    const found = channels(getComputedStyle(element).backgroundColor);
    if (found.length === 3 || found[3] === 1) return found;
  }
};
const faults = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility()) continue;
  const colors = [luminance(channels(getComputedStyle(element).color)), luminance(background(element))];
  const [one, two] = colors.sort((a, b) => b - a);
  if ((one + 0.05) / (two + 0.05) < 4.5) faults.push(element.outerHTML.slice(0, 100));
}
return faults;
"""
_LAYOUT_SHIFT = """
let sum = 0;
const add = (entries) => { for (const entry of entries) sum += entry.value; };
const observer = new PerformanceObserver((list) => add(list.getEntries()));
observer.observe({type: "layout-shift", buffered: true});
requestAnimationFrame(() => requestAnimationFrame(() => { add(observer.takeRecords()); done(sum); }));
"""
_PAST_THE_EDGE = """
const width = document.documentElement.clientWidth;
return [...document.querySelectorAll("main *")].filter((element) => element.checkVisibility()
  && !element.closest("pre, .scroll table, .hidden, svg")
  && element.getBoundingClientRect().right > width + 0.5).map((element) => element.outerHTML.slice(0, 100));
"""
_NOT_ACCESSIBLE = """
const faults = [];
if (document.querySelectorAll("h1").length !== 1) faults.push("h1");
if (document.querySelectorAll("main").length !== 1) faults.push("main");
for (const input of document.querySelectorAll("input:not([type=hidden])"))
  if (!input.labels.length) faults.push(input.outerHTML);
for (const table of document.querySelectorAll("table"))
  if (!table.querySelector("th[scope]")) faults.push("a table without headings");
for (const section of document.querySelectorAll("section[aria-labelledby]"))
  if (!document.getElementById(section.getAttribute("aria-labelledby"))) faults.push(section.outerHTML.slice(0, 80));
for (const target of document.querySelectorAll("a, button"))
  if (!(target.getAttribute("aria-label") || target.textContent.trim())) faults.push(target.outerHTML);
const identifiers = [...document.querySelectorAll("[id]")].map((element) => element.id);
if (new Set(identifiers).size !== identifiers.length) faults.push("an id twice");
return faults;
"""
