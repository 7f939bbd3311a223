"""Manifests: what the image specification, Docker's schema 2 and real clients write is understood; everything else is
refused with a reason.

The documents are under `tests/support/data/manifests`, one a file: those that must be taken and those that must be
refused.
"""

from __future__ import annotations

import hashlib
import json
import threading
import unittest
from typing import NamedTuple

from tests.support.server import TOP
from vex.errors import MANIFEST_INVALID, MANIFEST_TOO_LARGE, RegistryError
from vex.formats.manifest import (
    Descriptor,
    Manifest,
    ManifestLimits,
    parse_manifest,
    parse_stored,
    referrer_fallback_tag,
)
from vex.names import Digest

DOCUMENTS = TOP / "tests" / "support" / "data" / "manifests"
LIMITS = ManifestLimits()

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
BUILDKIT_CONFIG = "application/vnd.buildkit.cacheconfig.v0"


class Expected(NamedTuple):
    """What a valid document means: numbers of its descriptors, and of those whose content must be in the repository."""

    media_type: str
    artifact_type: str = ""
    layers: int = 0
    blobs: int = 0
    manifests: int = 0
    required_manifests: int = 0
    subject: bool = False


VALID = {
    "artifact-without-type-of-its-own": Expected(
        OCI_MANIFEST, "application/vnd.example.sbom.config.v1+json", layers=1, blobs=2, subject=True
    ),
    "buildkit-attestation": Expected(OCI_MANIFEST, OCI_CONFIG, layers=2, blobs=3),
    "buildkit-cache-image": Expected(OCI_MANIFEST, BUILDKIT_CONFIG, layers=1, blobs=2),
    "buildkit-cache-index": Expected(OCI_INDEX, manifests=3, required_manifests=3),
    "buildkit-index-with-attestations": Expected(OCI_INDEX, manifests=4, required_manifests=4),
    "docker-foreign-layer": Expected(DOCKER_MANIFEST, DOCKER_CONFIG, layers=2, blobs=2),
    "docker-image": Expected(DOCKER_MANIFEST, DOCKER_CONFIG, layers=3, blobs=4),
    "docker-list": Expected(DOCKER_LIST, manifests=3, required_manifests=3),
    "empty-index": Expected(OCI_INDEX),
    "escapes": Expected(OCI_INDEX),
    "helm-chart": Expected(OCI_MANIFEST, "application/vnd.cncf.helm.config.v1+json", layers=2, blobs=3),
    "image-with-null-layers": Expected(OCI_MANIFEST, OCI_CONFIG, blobs=1),
    "image-without-layers": Expected(OCI_MANIFEST, OCI_CONFIG, blobs=1),
    "index-with-foreign-children": Expected(OCI_INDEX, manifests=2, required_manifests=1),
    "index-with-null-manifests": Expected(OCI_INDEX),
    "index-with-subject": Expected(
        OCI_INDEX, "application/vnd.example.bundle.v1", manifests=1, required_manifests=1, subject=True
    ),
    "index-with-subject-without-type": Expected(OCI_INDEX, subject=True),
    "inline-data": Expected(OCI_MANIFEST, "application/vnd.example.note", layers=1, blobs=2),
    "largest-size": Expected(OCI_MANIFEST, OCI_CONFIG, blobs=1),
    "nested-index": Expected(OCI_INDEX, manifests=2, required_manifests=2),
    "oci-image": Expected(OCI_MANIFEST, OCI_CONFIG, layers=2, blobs=3),
    "oci-image-without-media-type": Expected(OCI_MANIFEST, OCI_CONFIG, layers=1, blobs=2),
    "oci-index-without-media-type": Expected(OCI_INDEX, manifests=1, required_manifests=1),
    "oci-index-without-media-type-or-children": Expected(OCI_INDEX),
    "oci-nondistributable-layers": Expected(OCI_MANIFEST, OCI_CONFIG, layers=6, blobs=3),
    "repeated-blobs": Expected(OCI_MANIFEST, "application/vnd.example.thing", layers=3, blobs=2),
    "sha512": Expected(OCI_MANIFEST, OCI_CONFIG, layers=1, blobs=2),
    "signature-with-subject": Expected(
        OCI_MANIFEST, "application/vnd.cncf.notary.signature", layers=1, blobs=2, subject=True
    ),
    "unknown-fields": Expected(OCI_MANIFEST, OCI_CONFIG, layers=1, blobs=2),
    "wasm": Expected(OCI_MANIFEST, "application/vnd.wasm.config.v0+json", layers=1, blobs=2),
    "zero-byte-layer": Expected(OCI_MANIFEST, OCI_CONFIG, layers=1, blobs=2),
    "zstd-layers": Expected(OCI_MANIFEST, OCI_CONFIG, layers=2, blobs=3),
}

# What the sentence must say, and the invalid documents that it must be said of.
INVALID = {
    DOCKER_MANIFEST: (
        "schema1-signed schema1-without-media-type oci-config-as-manifest artifact-manifest media-type-in-capitals"
        " no-fields layers-only"
    ),
    "mediaType must be": "media-type-not-a-string",
    "schemaVersion must be 2": (
        "schema-version-missing schema-version-1 schema-version-3 schema-version-string schema-version-float"
        " schema-version-true"
    ),
    "manifests must not be in an image": "layers-and-manifests untyped-with-config-and-manifests",
    "layers must not be in an index": "index-with-layers index-with-empty-layers docker-list-with-layers",
    "config must not be in an index": "index-with-config",
    "manifests must be": "index-without-manifests manifests-string",
    "config must be": "image-without-config config-null config-list",
    "layers must be": "layers-object",
    "layers[0] must be": "layer-null",
    "layers[1] must be": "layer-string",
    "manifests[0] must be": "child-number",
    "subject must be": "subject-string",
    "subject.digest must be": "subject-without-digest",
    "config.digest must be": "digest-missing digest-md5 digest-in-capitals",
    "layers[0].digest must be": "digest-short digest-newline digest-path digest-number",
    "layers[0].size must be": "size-missing size-negative size-over-63-bits size-float size-string size-true size-null",
    "two sizes": "two-sizes-for-one-layer two-sizes-for-config-and-layer two-sizes-for-one-child",
    "layers[0].mediaType must be": (
        "layer-media-type-missing layer-media-type-empty layer-media-type-without-slash layer-media-type-with-markup"
        " layer-media-type-with-newline layer-media-type-number"
    ),
    "artifactType must be": "artifact-type-with-space artifact-type-object",
    "annotations must be": "annotations-list annotation-number annotation-null",
    "layers[0].annotations must be": "layer-annotation-object",
    "manifests[0].platform must be": "platform-string",
    "layers[0].urls must be": "urls-string urls-number",
    "layers[0].artifactType must be": "layer-artifact-type-with-space",
    "layers[0].data must be": "data-number",
    "must be a JSON object": "top-level-list top-level-string top-level-null",
    "not valid JSON": (
        "empty white-space text truncated two-documents trailing-comma single-quotes comment leading-zero plus-sign"
        " bad-escape nul-byte nul-after-end line-break-in-string utf-16-without-mark"
    ),
    "not JSON": "nan infinity minus-infinity",
    "too large": "number-too-large number-too-small",
    "twice": "duplicate-field duplicate-field-escaped duplicate-annotation duplicate-unknown-field",
    "byte order mark": "byte-order-mark",
    "not UTF-8": "utf-16 latin-1 utf-8-overlong utf-8-surrogate",
    "surrogate": "lone-surrogate lone-low-surrogate lone-surrogate-in-name lone-surrogate-in-list",
    "digits": "integer-of-5000-digits integer-of-21-digits",
}


def read(name: str) -> bytes:
    return (DOCUMENTS / f"{name}.json").read_bytes()


def names(folder: str) -> set[str]:
    return {path.stem for path in (DOCUMENTS / folder).glob("*.json")}


def valid(name: str) -> Manifest:
    return parse_manifest(read(f"valid/{name}"), None, LIMITS)


def index_document(**fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], **fields}).encode()


def descriptors(count: int) -> list[dict[str, object]]:
    return [{"mediaType": OCI_MANIFEST, "digest": Digest.of(b"%d" % number), "size": number} for number in range(count)]


class ManifestCase(unittest.TestCase):
    def assert_refused(self, content: bytes, content_type: str | None = None, limits: ManifestLimits = LIMITS) -> str:
        """Check that the document is refused with 400 MANIFEST_INVALID and a sentence; return the sentence."""
        with self.assertRaises(RegistryError) as caught:
            parse_manifest(content, content_type, limits)
        self.assertEqual((caught.exception.kind.code, caught.exception.kind.status), ("MANIFEST_INVALID", 400))
        sentence = caught.exception.message
        self.assertNotEqual(
            sentence, MANIFEST_INVALID.message, "the sentence must say what is wrong with this document"
        )
        self.assertLess(len(sentence), 1000)
        self.assertTrue(sentence.isprintable(), sentence)
        return sentence


class ValidDocumentsTest(ManifestCase):
    def test_every_valid_document_is_expected(self) -> None:
        self.assertEqual(names("valid"), set(VALID))

    def test_valid_documents_mean_what_the_specification_says(self) -> None:
        for name, expected in VALID.items():
            with self.subTest(name):
                manifest = valid(name)
                self.assertEqual(
                    Expected(
                        manifest.media_type,
                        manifest.artifact_type,
                        len(manifest.layers),
                        len(manifest.blobs),
                        len(manifest.manifests),
                        sum(child.required for child in manifest.manifests),
                        manifest.subject is not None,
                    ),
                    expected,
                )
                self.assertEqual(manifest.is_index, expected.media_type in {OCI_INDEX, DOCKER_LIST})
                self.assertEqual(manifest.config is None, manifest.is_index)

    def test_descriptors_carry_what_the_document_says(self) -> None:
        content = b"hello"
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        manifest = valid("inline-data")
        self.assertEqual(manifest.layers, (Descriptor("text/plain", Digest(digest), 5, required=True),))
        empty = Digest("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")
        self.assertEqual(manifest.config, Descriptor("application/vnd.oci.empty.v1+json", empty, 2, required=True))

    def test_the_largest_size_is_that_of_a_signed_64_bit_integer(self) -> None:
        self.assertEqual([blob.size for blob in valid("largest-size").blobs], [9223372036854775807])

    def test_hex_digits_in_capitals_that_were_accepted_before_are_still_read(self) -> None:
        stored = parse_stored(read("invalid/digest-in-capitals"), DOCKER_MANIFEST)
        self.assertEqual(
            [blob.digest for blob in stored.blobs],
            ["sha256:d0f631ca1ddba8db3bcfcb9e057cdc98d0379f1bee00e75a545147a27dadd982"],
        )

    def test_children_of_an_index_keep_platform_and_annotations(self) -> None:
        image, _, attestation, _ = valid("buildkit-index-with-attestations").manifests
        self.assertEqual(image.platform, {"architecture": "amd64", "os": "linux"})
        self.assertEqual(image.annotations, {})
        self.assertEqual(attestation.platform, {"architecture": "unknown", "os": "unknown"})
        self.assertEqual(attestation.annotations["vnd.docker.reference.type"], "attestation-manifest")
        self.assertEqual(attestation.annotations["vnd.docker.reference.digest"], image.digest)

    def test_annotations_are_those_of_the_document(self) -> None:
        self.assertEqual(
            valid("oci-image").annotations,
            {
                "org.opencontainers.image.created": "2024-05-01T12:00:00Z",
                "org.opencontainers.image.title": "Beispiel für ein Abbild",
            },
        )
        self.assertEqual(valid("image-with-null-layers").annotations, {})

    def test_escapes_in_strings_are_decoded_and_brackets_in_them_are_text(self) -> None:
        self.assertEqual(valid("escapes").annotations, {"pair": "\U0001f433", "quote": '"[[{{\\', "nul": "\0"})

    def test_annotations_cannot_be_changed(self) -> None:
        with self.assertRaises(TypeError):
            valid("oci-image").annotations["a"] = "b"  # type: ignore[index]

    def test_layers_that_need_not_be_here_are_those_not_distributable_and_those_with_urls(self) -> None:
        self.assertEqual(
            [layer.required for layer in valid("oci-nondistributable-layers").layers],
            [False, False, False, False, True, True],
        )
        self.assertEqual([layer.required for layer in valid("docker-foreign-layer").layers], [False, True])

    def test_a_config_and_a_child_manifest_must_be_here_even_with_urls(self) -> None:
        reference = {**descriptors(1)[0], "urls": ["https://example.com/content"]}
        image = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": reference, "layers": []}).encode()
        self.assertEqual(len(parse_manifest(image, None, LIMITS).blobs), 1)
        self.assertTrue(parse_manifest(index_document(manifests=[reference]), None, LIMITS).manifests[0].required)

    def test_a_subject_need_not_be_here(self) -> None:
        subject = valid("signature-with-subject").subject
        self.assertIsNotNone(subject)
        self.assertFalse(subject and subject.required)


class InvalidDocumentsTest(ManifestCase):
    def test_every_invalid_document_is_expected(self) -> None:
        self.assertEqual(sorted(names("invalid")), sorted(" ".join(INVALID.values()).split()))

    def test_invalid_documents_are_refused_with_a_sentence_that_names_the_fault(self) -> None:
        for fragment, documents in INVALID.items():
            for name in documents.split():
                with self.subTest(name):
                    self.assertIn(fragment, self.assert_refused(read(f"invalid/{name}")))

    def test_every_byte_that_is_cut_off_makes_a_document_invalid(self) -> None:
        content = index_document(annotations={"a": 'b"\\ü'})
        for length in range(len(content)):
            self.assert_refused(content[:length])


class MediaTypeTest(ManifestCase):
    def test_content_type_stands_in_for_a_missing_media_type(self) -> None:
        untyped_image, untyped_index = (
            read("valid/oci-image-without-media-type"),
            read("valid/oci-index-without-media-type"),
        )
        for content, media_type in (
            (untyped_image, OCI_MANIFEST),
            (untyped_image, DOCKER_MANIFEST),
            (untyped_index, OCI_INDEX),
            (untyped_index, DOCKER_LIST),
        ):
            with self.subTest(media_type):
                self.assertEqual(parse_manifest(content, media_type, LIMITS).media_type, media_type)

    def test_parameters_case_and_white_space_of_content_type_are_dropped(self) -> None:
        for content_type in (
            OCI_INDEX + "; charset=utf-8",
            OCI_INDEX + ";v=1;w=2",
            "  " + OCI_INDEX + "\t",
            OCI_INDEX.upper(),
        ):
            with self.subTest(content_type):
                self.assertEqual(parse_manifest(index_document(), content_type, LIMITS).media_type, OCI_INDEX)

    def test_a_missing_or_empty_content_type_is_inferred_from_the_document(self) -> None:
        for content_type in (None, "", " ", "; charset=utf-8"):
            with self.subTest(content_type):
                self.assertEqual(
                    parse_manifest(read("valid/docker-list"), content_type, LIMITS).media_type, DOCKER_LIST
                )

    def test_a_content_type_that_contradicts_the_document_is_refused(self) -> None:
        for content_type in (OCI_MANIFEST, DOCKER_MANIFEST, DOCKER_LIST):
            with self.subTest(content_type):
                sentence = self.assert_refused(index_document(), content_type)
                self.assertIn(OCI_INDEX, sentence)
                self.assertIn(content_type, sentence)

    def test_other_content_types_are_refused_with_a_list_of_those_accepted(self) -> None:
        for content_type in (
            "application/vnd.docker.distribution.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "application/json",
            "application/octet-stream",
            "*/*",
            f"{OCI_INDEX}, {OCI_MANIFEST}",
            "\r\nx" * 1000,
        ):
            with self.subTest(content_type):
                sentence = self.assert_refused(index_document(), content_type)
                for accepted in (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST):
                    self.assertIn(accepted, sentence)

    def test_a_document_is_not_taken_for_the_other_kind(self) -> None:
        self.assertIn(
            "config must not be in an index", self.assert_refused(read("valid/oci-image-without-media-type"), OCI_INDEX)
        )
        self.assertIn(
            "manifests must not be in an image",
            self.assert_refused(read("valid/oci-index-without-media-type"), OCI_MANIFEST),
        )


class LimitsTest(ManifestCase):
    def test_the_limits_are_those_that_are_documented(self) -> None:
        self.assertEqual(LIMITS, (4 * 1024 * 1024, 20_000, 64))

    def test_a_manifest_of_4_mib_is_taken_and_one_of_a_byte_more_is_413(self) -> None:
        content = index_document().ljust(4 * 1024 * 1024)
        self.assertEqual(parse_manifest(content, None, LIMITS).media_type, OCI_INDEX)
        with self.assertRaises(RegistryError) as caught:
            parse_manifest(content + b" ", None, LIMITS)
        self.assertEqual(caught.exception.kind, MANIFEST_TOO_LARGE)
        self.assertIn("4194304", caught.exception.message)

    def test_20000_descriptors_are_taken_and_one_more_is_refused(self) -> None:
        self.assertEqual(
            len(parse_manifest(index_document(manifests=descriptors(20_000)), None, LIMITS).manifests), 20_000
        )
        self.assertIn("20000", self.assert_refused(index_document(manifests=descriptors(20_001))))

    def test_config_and_subject_count_as_descriptors(self) -> None:
        config, subject, *layers = descriptors(4)
        image = json.dumps(
            {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers, "subject": subject}
        ).encode()
        self.assertEqual(len(parse_manifest(image, None, LIMITS._replace(descriptors=4)).layers), 2)
        self.assertIn("descriptors", self.assert_refused(image, None, LIMITS._replace(descriptors=3)))

    def test_64_levels_are_taken_and_one_more_is_refused(self) -> None:
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            with self.subTest(opening):
                document = index_document()[:-1] + b', "x": %b1%b}'
                # The document itself is the first level.
                content = document % (opening * 63, closing * 63)
                self.assertEqual(parse_manifest(content, None, LIMITS).media_type, OCI_INDEX)
                self.assertIn("64 levels", self.assert_refused(document % (opening * 64, closing * 64)))

    def test_brackets_in_strings_are_no_levels(self) -> None:
        for text in ("[" * 1000, '"' + "[" * 1000, "\\" * 7 + '"' + "{" * 1000, "\\"):
            with self.subTest(text[:10]):
                self.assertEqual(parse_manifest(index_document(x=text, y=[text]), None, LIMITS).media_type, OCI_INDEX)

    def test_a_backslash_at_the_end_of_a_string_hides_no_nesting(self) -> None:
        self.assertIn("64 levels", self.assert_refused(b'{"a\\\\": ' + b"[" * 100_000))

    def test_100000_levels_do_not_crash_a_thread_with_a_small_stack(self) -> None:
        outcomes: list[str] = []

        def parse() -> None:
            for content in (b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000, b'"' + b"[" * 100_000):
                try:
                    parse_manifest(content, OCI_INDEX, LIMITS)
                except RegistryError as error:
                    outcomes.append(error.kind.code)

        before = threading.stack_size(256 * 1024)
        try:
            thread = threading.Thread(target=parse)
            thread.start()
        finally:
            threading.stack_size(before)
        thread.join()
        self.assertEqual(outcomes, ["MANIFEST_INVALID"] * 4)

    def test_hostile_documents_of_full_size_are_refused(self) -> None:
        size = 4 * 1024 * 1024
        documents = {
            "one integer": b'{"a":%b}' % (b"9" * (size - 6)),
            "one exponent": b'{"a":1e%b}' % (b"9" * (size - 8)),
            "one fraction": b'{"a":0.%b}' % (b"1" * (size - 8)),
            "one string of backslashes": b'{"a":"%b"}' % (b"\\" * (size - 8)),
            "quotes": b'"' * size,
        }
        for name, content in documents.items():
            with self.subTest(name):
                self.assertEqual(len(content), size)
                self.assert_refused(content, OCI_INDEX)


class ReferrerFallbackTagTest(unittest.TestCase):
    def test_it_is_the_algorithm_and_at_most_64_characters_of_the_encoded_part(self) -> None:
        self.assertEqual(referrer_fallback_tag(Digest("sha256:" + "a" * 64)), "sha256-" + "a" * 64)
        self.assertEqual(referrer_fallback_tag(Digest("sha512:" + "a" * 64 + "b" * 64)), "sha512-" + "a" * 64)

    def test_the_algorithm_is_cut_to_32_characters_and_illegal_ones_become_dashes(self) -> None:
        # The third example of the distribution specification, "Referrers Tag Schema".
        digest = Digest(
            "test+algorithm+using+algorithm+separators+and+lots+of+characters+to+excercise+overall+truncation:"
            "alsoSome=InTheEncodedSectionToShowHyphenReplacementAndLotsAndLotsOfCharactersToExcerciseEncodedTruncation"
        )
        self.assertEqual(
            referrer_fallback_tag(digest),
            "test-algorithm-using-algorithm-s-alsoSome-InTheEncodedSectionToShowHyphenReplacementAndLotsAndLot",
        )


if __name__ == "__main__":
    unittest.main()
