from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
KINDS = {".py", ".sql", ".html", ".css", ".js", ".svg"}


def letters(seed: int, weights: Sequence[float], length: int) -> bytes:
    """Choose letters, as many as there are weights, as often as their weights say."""
    return bytes(random.Random(seed).choices(range(len(weights)), weights, k=length))


# Numbers of letters whose codes have 3 bits, 4 bits and so on: so uneven that the longest code for code lengths would have 8 bits
UNEVEN = (2, 3, 5, 6, 8, 13, 21, 34, 30)

# What a compressor could get wrong
AWKWARD = {
    "empty.css": b"",
    "one-byte.css": b"a",
    "last-byte.css": b"\xff",
    "first-two-bytes.css": b"\0\1",
    "short.css": b"ab",
    "no-repetition.css": bytes(range(256)),
    "one-distance.css": b"a" * 1_000,
    "all-bytes.css": bytes(range(256)) * 3,
    "longest-repetitions.css": b"a" * 100_000 + b"b" + b"a" * 257 + b"c" + b"a" * 258,
    "later-repetition-is-longer.css": b"abc,bcdef,abcdef,abcdefg,bcdefgh,abcdefgh",
    "repetition-at-the-end.css": b"abcdabcabc",
    "farthest-repetition.css": (far := random.Random(1).randbytes(32_768)) + far[:300] + random.Random(2).randbytes(5) + far[:300],
    "repetition-one-byte-too-far.css": far + b"." + far[:300],
    "noise.css": random.Random(3).randbytes(50_000),
    "few-letters.css": letters(4, [1, 1, 1], 50_000),
    # The rarest letter's code would have 17 bits, and 15 are allowed.
    "longest-codes.css": letters(0, [1 << 12] * 64 + [1 << rank for rank in range(12)], 60_000),
    "longest-codes-for-lengths.css": letters(1, [2.0**-bits for bits, count in enumerate(UNEVEN, 3) for _ in range(count)], 3_000),
    "text.css": (TOP / "README.md").read_bytes(),
}


def copy_tree(top: Path, target: Path) -> Path:
    """Copy what the archive is made of, and what makes it."""
    target.mkdir()
    shutil.copy(top / "vex.py", target)
    shutil.copy(top / "zipapp.sh", target)
    shutil.copytree(top / "vex", target / "vex", ignore=shutil.ignore_patterns("__pycache__"))
    return target


def build(top: Path, *arguments: str, cwd: Path | None = None, umask: int = -1, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run zipapp.sh with this interpreter."""
    command = ["sh", str(top / "zipapp.sh"), *arguments]
    environment = {**os.environ, "PYTHON": sys.executable, **(variables or {})}
    return subprocess.run(command, cwd=cwd, umask=umask, env=environment, capture_output=True, text=True, timeout=60, check=False)


def add_litter(top: Path) -> None:
    """Put files where they may be lying in a checkout in use."""
    compiled = ("vex/__pycache__/cli.cpython-39.pyc", "vex/storage/sql/__pycache__/x.py", "vex/x.pyc")
    for name in (*compiled, "vex/.x.py", "vex/.cache/x.py", "data/vex.db", "vex.conf"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("litter")


class ZipappTest(unittest.TestCase):
    directory: Path
    top: Path
    archive: Path

    @classmethod
    def setUpClass(cls) -> None:
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.directory = Path(temporary.name)
        cls.top = copy_tree(TOP, cls.directory / "checkout")
        cls.archive = cls.top / "vex.pyz"
        result = build(cls.top, umask=0o022, variables={"TZ": "UTC", "LC_ALL": "C"})
        if result.returncode:
            raise AssertionError(result.stderr)

    def test_archive_is_the_same_whatever_directory_umask_times_zone_and_locale(self) -> None:
        second = copy_tree(self.top, self.directory / "a second one")
        add_litter(second)
        for number, path in enumerate(sorted(second.rglob("*"))):
            os.utime(path, (10**9 + number, 10**9 + number))
            path.chmod(0o700)
        result = build(second, cwd=second / "vex", umask=0o077, variables={"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"})
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertTrue((second / "vex.pyz").read_bytes() == self.archive.read_bytes())

    def test_archive_holds_every_source_file_and_nothing_else(self) -> None:
        sources = {str(path.relative_to(self.top)): path for path in (self.top / "vex").rglob("*") if path.suffix in KINDS}
        sources["__main__.py"] = self.top / "vex.py"
        with zipfile.ZipFile(self.archive) as archive:
            self.assertEqual(archive.namelist(), sorted(sources))
            for name, path in sources.items():
                with self.subTest(name=name):
                    self.assertTrue(archive.read(name) == path.read_bytes())

    def test_archive_gives_back_what_is_hard_to_compress(self) -> None:
        top = copy_tree(self.top, self.directory / "awkward")
        for name, content in AWKWARD.items():
            (top / "vex" / "web" / "static" / name).write_bytes(content)
        self.assertEqual(build(top).returncode, 0)
        with zipfile.ZipFile(top / "vex.pyz") as archive:
            self.assertIsNone(archive.testzip())
            for name, content in AWKWARD.items():
                with self.subTest(name=name):
                    self.assertTrue(archive.read(f"vex/web/static/{name}") == content)

    def test_sources_are_about_as_small_as_zlib_makes_them(self) -> None:
        with zipfile.ZipFile(self.archive) as archive:
            packed = sum(entry.compress_size for entry in archive.infolist())
            # Its header and checksum have 6 bytes.
            by_zlib = sum(len(zlib.compress(archive.read(entry), 9)) - 6 for entry in archive.infolist())
        self.assertLess(packed, by_zlib * 1.01)

    def test_entries_have_fixed_times_and_modes(self) -> None:
        with zipfile.ZipFile(self.archive) as archive:
            seen = {(entry.date_time, entry.external_attr >> 16, entry.create_system, entry.compress_type, entry.extra) for entry in archive.infolist()}
        self.assertEqual(seen, {((1980, 1, 1, 0, 0, 0), 0o100644, 3, zipfile.ZIP_DEFLATED, b"")})

    def test_archive_is_under_a_mebibyte(self) -> None:
        self.assertLess(self.archive.stat().st_size, 2**20)

    def test_archive_is_a_program_with_a_shebang(self) -> None:
        self.assertEqual(self.archive.stat().st_mode & 0o7777, 0o755)
        self.assertTrue(self.archive.read_bytes().startswith(b"#!/usr/bin/env python3\nPK"))

    def test_build_prints_size_and_path(self) -> None:
        output = self.directory / "printed.pyz"
        self.assertEqual(build(self.top, str(output)).stdout, f"{output.stat().st_size} bytes {output}\n")

    def test_relative_output_is_relative_to_the_current_directory_and_replaced(self) -> None:
        work = self.directory / "work"
        work.mkdir()
        (work / "out.pyz").write_text("the one before")
        self.assertEqual(build(self.top, "out.pyz", cwd=work).returncode, 0)
        self.assertTrue((work / "out.pyz").read_bytes() == self.archive.read_bytes())
        self.assertEqual(os.listdir(work), ["out.pyz"])

    def test_modules_of_the_current_directory_are_not_used(self) -> None:
        trap = self.directory / "trap"
        trap.mkdir()
        (trap / "zipfile.py").write_text("raise SystemExit('trapped')")
        self.assertEqual(build(self.top, "out.pyz", cwd=trap).returncode, 0)

    def test_unknown_kind_of_file_stops_the_build_and_leaves_nothing(self) -> None:
        top = copy_tree(self.top, self.directory / "unknown")
        (top / "vex" / "api.py.orig").write_text("")
        result = build(top)
        self.assertEqual(result.returncode, 1)
        self.assertIn("api.py.orig: not a kind of file that the archive holds", result.stderr)
        self.assertEqual(sorted(os.listdir(top)), ["vex", "vex.py", "zipapp.sh"])

    def test_output_that_cannot_be_written_is_one_line_on_standard_error(self) -> None:
        result = build(self.top, str(self.directory / "missing" / "vex.pyz"))
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"\Azipapp\.sh: [^\n]*No such file or directory[^\n]*\n\Z")

    def test_more_than_one_argument_is_a_wrong_command_line(self) -> None:
        result = build(self.top, "a", "b", cwd=self.directory)
        self.assertEqual((result.returncode, result.stdout), (2, ""))
        self.assertIn("usage:", result.stderr)

    def test_no_module_of_the_archive_is_compiled_twice(self) -> None:
        script = """
import runpy, sys
names = []
sys.addaudithook(lambda event, arguments: event == "compile" and arguments[1] and names.append(arguments[1]))
sys.argv[:] = [sys.argv[1], "version"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(*names, sep="\\n", file=sys.stderr)
"""
        ran = subprocess.run([sys.executable, "-c", script, str(self.archive)], capture_output=True, text=True, timeout=60, check=True)
        compiled = [name for name in ran.stderr.splitlines() if "/vex/" in name]
        self.assertGreater(len(compiled), 10)
        self.assertEqual(sorted(compiled), sorted(set(compiled)))

    def test_archive_runs_isolated_and_without_site_packages(self) -> None:
        for flags in ([], ["-I"], ["-S"], ["-I", "-S"]):
            with self.subTest(flags=flags):
                command = [sys.executable, *flags, str(self.archive), "version"]
                result = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, timeout=60, check=False)
                self.assertEqual((result.returncode, result.stderr), (0, ""))
