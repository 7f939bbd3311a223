"""Tables of commands, for people, for programs and as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import unittest

from vex.commands.tables import DIGEST, LIST, NUMBER, SIZE, TIME, Column, aligned, show, size

COLUMNS = (
    Column("NAME", "name"),
    Column("DIGEST", "digest", DIGEST),
    Column("PLATFORMS", "platforms", LIST),
    Column("COUNT", "count", NUMBER),
    Column("SIZE", "bytes", SIZE),
    Column("PUSHED", "pushed", TIME),
)
ROW = {
    "name": "app\x1b[31m",
    "digest": f"sha256:{'ab' * 32}",
    "platforms": ["linux/amd64", "linux/arm64"],
    "count": 1234,
    "bytes": 5 * 1024 * 1024,
    "pushed": 1_700_000_000,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(to: io.StringIO, *rows: dict[str, object], as_json: bool = False) -> str:
    with contextlib.redirect_stdout(to):
        show(rows, COLUMNS, as_json=as_json)
    return to.getvalue()


class Tables(unittest.TestCase):
    def test_on_a_terminal_it_is_aligned_and_short(self) -> None:
        heading, row = printed(Terminal(), {**ROW, "platforms": []}).splitlines()
        self.assertEqual(heading.index("SIZE") + 4, row.index("5.0 MiB") + 7)
        self.assertIn("  abababababab  -  ", row.replace("-        ", "-"))
        self.assertIn("1,234", row)

    def test_elsewhere_it_is_whole_for_programs(self) -> None:
        line = printed(io.StringIO(), ROW)
        fields = line.rstrip("\n").split("\t")
        self.assertEqual(
            fields[1:], [ROW["digest"], "linux/amd64,linux/arm64", "1234", "5242880", "2023-11-14T22:13:20Z"]
        )

    def test_as_json_a_row_is_an_object_with_all_that_is_known(self) -> None:
        line = printed(Terminal(), {**ROW, "more": 1}, as_json=True)
        self.assertEqual(json.loads(line), {**ROW, "more": 1, "pushed": "2023-11-14T22:13:20Z"})

    def test_nothing_in_it_commands_the_terminal(self) -> None:
        for to in (Terminal(), io.StringIO()):
            self.assertNotIn("\x1b", printed(to, ROW))

    def test_without_rows_there_is_no_heading(self) -> None:
        self.assertEqual(printed(Terminal()), "")

    def test_it_fits_where_it_can(self) -> None:
        columns = (Column("A", "a"), Column("B", "b"), Column("C", "c", NUMBER))
        for width in (30, 50, 79, 100):
            lines = aligned(columns, [("x" * 70, "y" * 20, "1"), ("x", "y", "22")], width).splitlines()
            with self.subTest(width):
                self.assertLessEqual(max(map(len, lines)), width)
                self.assertEqual(len({len(line) for line in lines}), 1)
        # Where it cannot, what is left of a name is still one.
        self.assertIn("xxxxxxxxxxx…", aligned(columns, [("x" * 70, "y" * 20, "1")], 5))

    def test_sizes_are_those_of_a_person(self) -> None:
        self.assertEqual([size(count) for count in (0, 1023, 1024, 10**12)], ["0 B", "1023 B", "1.0 KiB", "931.3 GiB"])
