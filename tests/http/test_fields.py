"""The query, conditions and credentials: RFC 3986, 9110 and 7617, and what the OCI distribution specification says of
Content-Range.
"""

from __future__ import annotations

import base64
import unittest

from vex.errors import BAD_REQUEST, BLOB_UPLOAD_INVALID, RegistryError
from vex.http.fields import etag_matches, if_range_matches, parse_basic, parse_content_range, parse_query

ETAG = '"sha256:abc"'


def basic(text: str | bytes) -> str:
    return "Basic " + base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


class QueryTest(unittest.TestCase):
    def test_queries_are_decoded(self) -> None:
        cases: dict[str, dict[str, list[str]]] = {
            "": {},
            "n=10&last=a": {"n": ["10"], "last": ["a"]},
            "tag=a&tag=b": {"tag": ["a", "b"]},
            "digest=sha256%3Aabc": {"digest": ["sha256:abc"]},
            "digest=sha256:abc": {"digest": ["sha256:abc"]},
            "a=b+c%2Bd%20e": {"a": ["b c+d e"]},
            "%61+b=c": {"a b": ["c"]},
            "a=b=c": {"a": ["b=c"]},
            "a": {"a": [""]},
            "a=": {"a": [""]},
            "=a": {"": ["a"]},
            "&&a=b&": {"a": ["b"]},
            "a=%C3%A9%e2%82%ac": {"a": ["\u00e9\u20ac"]},
            "a=%2526": {"a": ["%26"]},
            "a=?/:@": {"a": ["?/:@"]},
        }
        for text, expected in cases.items():
            with self.subTest(text):
                self.assertEqual(parse_query(text), expected)

    def test_queries_that_cannot_be_decoded_are_refused(self) -> None:
        escapes = ("a=%", "a=%4", "a=%zz", "a=%+1", "%=a")
        controls = ("a=%00", "%00=a", "a=%0d%0aSet-Cookie:x", "a=%1b", "a=%7f", "a=%c2%85")
        for text in (*escapes, *controls, "a=%ff", "a=%ed%a0%80", "a=%c0%af"):
            with self.subTest(text), self.assertRaises(RegistryError) as caught:
                parse_query(text)
            self.assertEqual(caught.exception.kind, BAD_REQUEST)

    def test_at_most_64_parameters_are_taken(self) -> None:
        self.assertEqual(parse_query("&".join(["tag=a"] * 64)), {"tag": ["a"] * 64})
        self.assertRaises(RegistryError, parse_query, "&".join(["tag=a"] * 65))


class ContentRangeTest(unittest.TestCase):
    def test_first_and_last_offsets_are_inclusive(self) -> None:
        for value, expected in {
            "0-0": (0, 0),
            "0-1023": (0, 1023),
            "1024-2047": (1024, 2047),
            "0-9223372036854775807": (0, 2**63 - 1),
        }.items():
            with self.subTest(value):
                self.assertEqual(parse_content_range(value), expected)

    def test_a_size_behind_the_offsets_does_not_matter(self) -> None:
        for size in ("*", "0", "1024", "9223372036854775807"):
            with self.subTest(size):
                self.assertEqual(parse_content_range(f"0-1023/{size}"), (0, 1023))

    def test_everything_else_is_refused(self) -> None:
        sizes = ("0-1/", "0-1/x", "0-1/-1", "0-1/2/3", "0-1/**", "*/2", "bytes 0-1/2")
        shapes = ("", "-", "0-", "-0", *sizes, "bytes=0-1", " 0-1", "0-1 ", "0-1\n", "0 - 1", "0-1,2-3")
        numbers = ("5-2", "a-b", "+0-1", "0-1_0", "\u0660-\u0661", "0-" + "9" * 5000)
        for value in (*shapes, *numbers):
            with self.subTest(value[:40]), self.assertRaises(RegistryError) as caught:
                parse_content_range(value)
            self.assertEqual(caught.exception.kind, BLOB_UPLOAD_INVALID)


class ConditionTest(unittest.TestCase):
    def test_if_none_match_compares_weakly_with_each_of_a_list(self) -> None:
        for value in ("*", " * ", ETAG, f"W/{ETAG}", f'"x", {ETAG}', f'"a,b",W/"c" , W/{ETAG},"d"', f", {ETAG}"):
            with self.subTest(value):
                self.assertTrue(etag_matches(value, ETAG))
                self.assertTrue(etag_matches(value, f"W/{ETAG}"))

    def test_other_entity_tags_do_not_match(self) -> None:
        for value in (
            "",
            '""',
            '"sha256:abd"',
            '"SHA256:ABC"',
            '"xsha256:abc"',
            '"sha256:abcd"',
            '"*"',
            "**",
            "sha256:abc",
            '"sha256:abc',
            'sha256:abc"',
        ):
            with self.subTest(value):
                self.assertFalse(etag_matches(value, ETAG))

    def test_if_range_holds_for_the_same_strong_tag_and_when_it_is_missing(self) -> None:
        self.assertTrue(if_range_matches(None, ETAG))
        self.assertTrue(if_range_matches(ETAG, ETAG))

    def test_if_range_does_not_hold_for_weak_tags_dates_and_others(self) -> None:
        for value in ("", f"W/{ETAG}", '"other"', "*", "sha256:abc", "Tue, 15 Nov 1994 08:12:31 GMT", f'{ETAG}, "x"'):
            with self.subTest(value):
                self.assertFalse(if_range_matches(value, ETAG))
        self.assertFalse(if_range_matches(f"W/{ETAG}", f"W/{ETAG}"))


class BasicTest(unittest.TestCase):
    def test_credentials_are_a_name_and_a_password(self) -> None:
        cases = {
            # RFC 7617 sections 2 and 2.1
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==": ("Aladdin", "open sesame"),
            "Basic dGVzdDoxMjPCow==": ("test", "123\u00a3"),
            "basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==": ("Aladdin", "open sesame"),
            "BASIC  QWxhZGRpbjpvcGVuIHNlc2FtZQ==": ("Aladdin", "open sesame"),
            basic("user:a:b:"): ("user", "a:b:"),
            basic("user:"): ("user", ""),
            basic("user:\u00e9\U0001f511"): ("user", "\u00e9\U0001f511"),
        }
        for value, expected in cases.items():
            with self.subTest(value):
                self.assertEqual(parse_basic(value), expected)

    def test_everything_else_is_no_credentials(self) -> None:
        cases = {
            "nothing": None,
            "empty": "",
            "scheme alone": "Basic",
            "scheme and a space": "Basic ",
            "bad base64": "Basic !!!!",
            "unpadded base64": "Basic dXNlcjpwYXNzMQ",
            "one character": "Basic Q",
            "url-safe base64": "Basic dXNlcjpw_w==",
            "space within": "Basic dXNl cjpwYXNz",
            "something behind": basic("user:pass") + " x",
            "padding within": "Basic QQ==OmI=",
            "no colon": basic("user"),
            "empty name": basic(":password"),
            "NUL in the name": basic("us\0er:pass"),
            "NUL in the password": basic("user:pa\0ss"),
            "not UTF-8": basic(b"user:\xff\xfe"),
            "Latin-1": basic("user:caf\u00e9".encode("latin-1")),
            "beyond ASCII": "Basic dXNlcjpw\u00e9w==",
            "over 4 KiB": basic("user:" + "a" * 4096),
            "two lines": basic("user:pass") + ", " + basic("user:pass"),
            "bearer": "Bearer " + basic("user:pass")[6:],
            "digest": 'Digest username="user"',
            "no space": "Basic" + basic("user:pass")[6:],
            "tab": "Basic\t" + basic("user:pass")[6:],
        }
        for name, value in cases.items():
            with self.subTest(name):
                self.assertIsNone(parse_basic(value))

    def test_four_kibibytes_are_the_limit(self) -> None:
        within = basic("user:" + "a" * 3060)
        self.assertLessEqual(len(within), 4096)
        self.assertIsNotNone(parse_basic(within))
        self.assertIsNone(parse_basic(basic("user:" + "a" * 3066)))
