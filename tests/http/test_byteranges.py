"""Ranges of bytes, and answers that hold several: RFC 9110 sections 14 and 15.3.7."""

from __future__ import annotations

import unittest

from tests.support.multipart import read_parts
from vex.errors import RANGE_INVALID, RegistryError
from vex.http.byteranges import Range, multipart, parse_ranges


class RangeTest(unittest.TestCase):
    def test_one_range_selects_from_the_first_offset_to_past_the_last(self) -> None:
        cases = {
            "bytes=0-0": (0, 1),
            "bytes=0-9": (0, 10),
            "bytes=2-5": (2, 6),
            "bytes=9-9": (9, 10),
            "bytes=3-": (3, 10),
            "bytes=-1": (9, 10),
            "bytes=-10": (0, 10),
            "bytes=-99": (0, 10),
            "bytes=0-99": (0, 10),
            "bytes=5-99999999999999999999999": (5, 10),
            "bytes=000000000000000000000002-5": (2, 6),
            "bytes=-" + "9" * 5000: (0, 10),
            "BYTES=2-5": (2, 6),
            "bytes= 2-5 ": (2, 6),
        }
        for value, expected in cases.items():
            with self.subTest(value[:40]):
                self.assertEqual(parse_ranges(value, 10), [expected])

    def test_what_lies_outside_is_refused_with_the_size(self) -> None:
        for value in (
            "bytes=10-",
            "bytes=10-10",
            "bytes=11-20",
            "bytes=5-2",
            "bytes=-0",
            "bytes=" + "9" * 5000 + "-",
            "bytes=99999999999999999999-5",
        ):
            with self.subTest(value[:40]), self.assertRaises(RegistryError) as caught:
                parse_ranges(value, 10)
            self.assertEqual(
                (caught.exception.kind, caught.exception.headers), (RANGE_INVALID, (("Content-Range", "bytes */10"),))
            )

    def test_what_are_no_ranges_of_bytes_selects_the_whole(self) -> None:
        nonsense = ("", "bytes", "bytes=", "bytes=-", "bytes=1", "bytes 0-1", "bytes=0-1\n", "bytes=1 -2")
        odd_numbers = ("bytes=a-b", "bytes=+1-2", "bytes=1--2", "bytes=1_0-20", "bytes=0x1-2", "bytes=\u0661-\u0662")
        lists = (
            "bytes=,",
            "bytes= , ,",
            "bytes=0-1,5-2",
            "bytes=0-1,x",
            "bytes=0-1,-",
            "bytes=0-1;3-4",
            "bytes=0-1, bytes=3-4",
            "bytes=0-1,3 - 4",
        )
        for value in (None, *nonsense, *odd_numbers, *lists, "items=0-1", "xbytes=0-1"):
            with self.subTest(value):
                self.assertIsNone(parse_ranges(value, 10))

    def test_of_nothing_the_first_and_the_last_bytes_are_the_whole(self) -> None:
        for value in ("bytes=-5", "bytes=0-", "bytes=0-0", "bytes=0-8388607"):
            with self.subTest(value):
                self.assertIsNone(parse_ranges(value, 0))
        for value in ("bytes=1-", "bytes=1-5", "bytes=-0"):
            with self.subTest(value), self.assertRaises(RegistryError) as caught:
                parse_ranges(value, 0)
            self.assertEqual(caught.exception.headers, (("Content-Range", "bytes */0"),))

    def test_several_ranges_select_each_in_the_order_in_which_they_were_asked_for(self) -> None:
        cases = {
            "bytes=0-1,3-4": [(0, 2), (3, 5)],
            "bytes=0-1, -1": [(0, 2), (9, 10)],
            "bytes=8-,0-1": [(8, 10), (0, 2)],
            "bytes=7-8 ,\t0-0,,4-4,": [(7, 9), (0, 1), (4, 5)],
            "bytes=0-0,2-2,20-30": [(0, 1), (2, 3)],
            "bytes=20-30,2-2,-0": [(2, 3)],
        }
        for value, expected in cases.items():
            with self.subTest(value):
                self.assertEqual(parse_ranges(value, 10), expected)

    def test_what_touches_or_overlaps_is_one_range_where_the_first_of_it_stood(self) -> None:
        cases = {
            "bytes=0-1,2-3": [(0, 4)],
            "bytes=0-5,2-3": [(0, 6)],
            "bytes=2-3,0-5,9-9": [(0, 6), (9, 10)],
            "bytes=8-8,2-3,6-6,0-1": [(8, 9), (0, 4), (6, 7)],
            "bytes=6-7,0-1,4-5": [(4, 8), (0, 2)],
            "bytes=0-0,0-0,0-0": [(0, 1)],
            "bytes=0-,-10,3-4": [(0, 10)],
        }
        for value, expected in cases.items():
            with self.subTest(value):
                self.assertEqual(parse_ranges(value, 10), expected)

    def test_several_that_all_lie_outside_are_refused_with_the_size(self) -> None:
        with self.assertRaises(RegistryError) as caught:
            parse_ranges("bytes=10-11,20-,-0", 10)
        self.assertEqual(
            (caught.exception.kind, caught.exception.headers), (RANGE_INVALID, (("Content-Range", "bytes */10"),))
        )

    def test_a_thousand_ranges_are_taken_and_more_select_the_whole(self) -> None:
        specs = [f"{at}-{at}" for at in range(0, 2002, 2)]
        self.assertEqual(
            parse_ranges("bytes=" + ",".join(specs[:1000]), 10_000), [(at, at + 1) for at in range(0, 2000, 2)]
        )
        self.assertIsNone(parse_ranges("bytes=" + ",".join(specs), 10_000))


class MultipartTest(unittest.TestCase):
    content = bytes(range(256)) * 40

    def test_an_answer_holds_the_parts_and_is_as_long_as_it_says(self) -> None:
        ranges = [Range(100, 200), Range(0, 1), Range(5000, 6000), Range(10_239, 10_240)]
        found = multipart(ranges, len(self.content), "application/octet-stream")
        assert found
        body = b"".join(before + self.content[part.first : part.end] for before, part in found.parts)
        self.assertEqual(len(body), found.length)
        self.assertEqual(
            read_parts(found.media_type, body),
            [(f"bytes {part.first}-{part.end - 1}/10240", self.content[slice(*part)]) for part in ranges],
        )

    def test_no_two_answers_have_the_same_boundary(self) -> None:
        found = {getattr(multipart([Range(0, 1), Range(5, 6)], 10_000, "a/b"), "media_type", "") for _ in range(100)}
        self.assertEqual(len(found), 100)

    def test_what_is_no_shorter_than_the_whole_is_not_made(self) -> None:
        ranges = [Range(0, 1), Range(5, 6)]
        found = multipart(ranges, 999, "a/b")
        assert found
        self.assertIsNone(multipart(ranges, found.length, "a/b"))
        self.assertIsNotNone(multipart(ranges, found.length + 1, "a/b"))


if __name__ == "__main__":
    unittest.main()
