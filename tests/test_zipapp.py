from __future__ import annotations

import ast
import base64
import binascii
import io
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import tokenize
import unittest
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
KINDS = {".py", ".sql", ".html", ".css", ".js", ".svg", ".md", ".conf", ".service", ".txt"}


# What a place in the archive could be got wrong for
AWKWARD = {
    "empty.css": b"",
    "one-byte.css": b"a",
    "last-byte.css": b"\xff",
    "all-bytes.css": bytes(range(256)) * 3,
    "line-ends.css": b"a\r\nb\rc\n",
    "long.css": b"a" * 100_000,
    "noise.css": random.Random(3).randbytes(50_000),
    # What the parts of an archive begin with
    "an-archive-itself.css": b"PK\3\4PK\1\2PK\5\6" * 20,
    "text.css": (TOP / "README.md").read_bytes(),
}


MODULE = b'''\
# A comment
"""A docstring # that is one,
of two 'lines'.
"""  # after it
import sys  # why

PATTERN = "a#b"  # what
TEXT = (
    # within
    "one" "#two"
)

class Empty(Exception):
    "nothing else"

class Full:
    # before a docstring
    r"Raw \\d."
    field = 1

    def method(self):
        "one line"
        return 1
    "no docstring"

    def joined(self):
        print(f"{self.field!r:#>5}#{'#'}")
        return """
# no comment"""

"a".upper().join("b")
if PATTERN:
    """in a block"""
    print(sys.argv); "last"
# the end'''


def code_of(module: bytes) -> list[str]:
    """List what Python makes of a module, each thing with its line, but for strings that are statements."""
    tree = ast.parse(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value.value = ""
    return [f"{getattr(node, 'lineno', 0)} {ast.dump(node)}" for node in ast.walk(tree)]


def explained(module: bytes) -> list[str]:
    """List the comments and docstrings of a module."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(module)) if isinstance(node, kinds)]
    tokens = tokenize.tokenize(io.BytesIO(module).readline)
    return [text for text in found if text] + [token.string for token in tokens if token.type == tokenize.COMMENT]


def copy_tree(top: Path, target: Path) -> Path:
    """Copy what the archive is made of, and what makes it."""
    target.mkdir()
    shutil.copy(top / "vex.py", target)
    shutil.copy(top / "zipapp.sh", target)
    shutil.copytree(top / "vex", target / "vex", ignore=shutil.ignore_patterns("__pycache__"))
    return target


def build(
    top: Path, *arguments: str, cwd: Path | None = None, umask: int = -1, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run zipapp.sh with this interpreter."""
    command = ["sh", str(top / "zipapp.sh"), *arguments]
    environment = {**os.environ, "PYTHON": sys.executable, **(variables or {})}
    return subprocess.run(
        command, cwd=cwd, umask=umask, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


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
        sources = {
            str(path.relative_to(self.top)): path for path in (self.top / "vex").rglob("*") if path.suffix in KINDS
        }
        sources["__main__.py"] = self.top / "vex.py"
        with zipfile.ZipFile(self.archive) as archive:
            self.assertEqual(archive.namelist(), sorted(sources))
            for name, path in sources.items():
                with self.subTest(name=name):
                    content = path.read_bytes()
                    if path.suffix == ".py":
                        self.assertEqual(explained(archive.read(name)), [])
                        self.assertTrue(code_of(archive.read(name)) == code_of(content))
                    else:
                        self.assertTrue(archive.read(name) == content)

    def test_comments_and_docstrings_are_left_out_and_nothing_else(self) -> None:
        top = copy_tree(self.top, self.directory / "explained")
        (top / "vex" / "explained.py").write_bytes(MODULE)
        self.assertEqual(build(top).returncode, 0)
        with zipfile.ZipFile(top / "vex.pyz") as archive:
            bare = archive.read("vex/explained.py")
        self.assertEqual(len(explained(MODULE)), 11)
        self.assertEqual(explained(bare), [])
        self.assertEqual(code_of(bare), code_of(MODULE))
        self.assertEqual(bare.count(b"\n"), MODULE.count(b"\n"))

    def test_archive_gives_back_what_is_awkward_to_zipfile_and_to_its_own_importer(self) -> None:
        top = copy_tree(self.top, self.directory / "awkward")
        for name, content in AWKWARD.items():
            (top / "vex" / "web" / "static" / name).write_bytes(content)
        self.assertEqual(build(top).returncode, 0)
        # Behind a longer shebang, every entry is elsewhere than the archive says.
        moved = self.directory / "moved.pyz"
        moved.write_bytes(b"#!/usr/bin/env -S python3 -I\n" + (top / "vex.pyz").read_bytes().partition(b"\n")[2])
        for path in (top / "vex.pyz", moved):
            imported = self._read_by_importer(path, AWKWARD)
            with zipfile.ZipFile(path) as archive:
                self.assertIsNone(archive.testzip())
                for name, content in AWKWARD.items():
                    with self.subTest(path=path.name, name=name):
                        self.assertTrue(archive.read(f"vex/web/static/{name}") == content)
                        self.assertEqual(imported[name], content)

    def _read_by_importer(self, archive: Path, names: Iterable[str]) -> dict[str, bytes]:
        script = """
import base64, pkgutil, runpy, sys
names, sys.argv[1:] = sys.argv[2:], ["version"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    for name in names:
        print(name, base64.b64encode(pkgutil.get_data("vex", f"web/static/{name}")).decode(), file=sys.stderr)
"""
        command = [sys.executable, "-c", script.replace("sys.argv[0]", repr(str(archive))), "-", *names]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return {
            name: base64.b64decode(content)
            for name, _, content in (line.partition(" ") for line in ran.stderr.splitlines())
        }

    def test_archive_is_what_the_format_says_under_every_python(self) -> None:
        """Write it out by hand (APPNOTE sections 4.3.7, 4.3.12 and 4.3.16): version 2.0 on Unix, no flags, stored,
        1980-01-01 00:00, mode 0644.
        """
        expected, directory = b"#!/usr/bin/env python3\n", []
        sources = {
            path.relative_to(self.top).as_posix(): path
            for path in (self.top / "vex").rglob("*")
            if path.suffix in KINDS
        }
        sources["__main__.py"] = self.top / "vex.py"
        with zipfile.ZipFile(self.archive) as archive:
            modules = {name: archive.read(name) for name in archive.namelist() if name.endswith(".py")}
        for name, path in sorted(sources.items()):
            data = modules[name] if path.suffix == ".py" else path.read_bytes()
            common = struct.pack(
                "<HHHHHIIIHH", 20, 0, 0, 0, 33, binascii.crc32(data), len(data), len(data), len(name), 0
            )
            place = struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, len(expected))
            directory.append(b"PK\1\2" + struct.pack("<H", 3 << 8 | 20) + common + place + name.encode())
            expected += b"PK\3\4" + common + name.encode() + data
        listed = b"".join(directory)
        end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, len(directory), len(directory), len(listed), len(expected), 0)
        self.assertTrue(self.archive.read_bytes() == expected + listed + end)

    def test_entries_have_fixed_times_and_modes_and_are_stored(self) -> None:
        with zipfile.ZipFile(self.archive) as archive:
            seen = {
                (entry.date_time, entry.external_attr >> 16, entry.create_system, entry.compress_type, entry.extra)
                for entry in archive.infolist()
            }
        self.assertEqual(seen, {((1980, 1, 1, 0, 0, 0), 0o100644, 3, zipfile.ZIP_STORED, b"")})

    def test_pages_of_the_manual_are_in_the_archive_and_its_pictures_are_not(self) -> None:
        top = copy_tree(self.top, self.directory / "with a manual")
        manual = top / "vex" / "manual"
        manual.mkdir(exist_ok=True)
        (manual / "a-page.md").write_text("# A page\n")
        (manual / "a-picture.png").write_bytes(b"\x89PNG\r\n")
        self.assertEqual(build(top).returncode, 0)
        with zipfile.ZipFile(top / "vex.pyz") as archive:
            self.assertEqual(archive.read("vex/manual/a-page.md"), b"# A page\n")
            self.assertNotIn("vex/manual/a-picture.png", archive.namelist())

    def test_what_builds_it_is_a_page(self) -> None:
        self.assertLessEqual(len((TOP / "zipapp.sh").read_text().splitlines()), 70)

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
        ran = subprocess.run(
            [sys.executable, "-c", script, str(self.archive)], capture_output=True, text=True, timeout=60, check=True
        )
        compiled = [name for name in ran.stderr.splitlines() if "/vex/" in name]
        self.assertGreater(len(compiled), 10)
        self.assertEqual(sorted(compiled), sorted(set(compiled)))

    def test_archive_runs_isolated_and_without_site_packages(self) -> None:
        for flags in ([], ["-I"], ["-S"], ["-I", "-S"]):
            with self.subTest(flags=flags):
                command = [sys.executable, *flags, str(self.archive), "version"]
                result = subprocess.run(
                    command, cwd=self.directory, capture_output=True, text=True, timeout=60, check=False
                )
                self.assertEqual((result.returncode, result.stderr), (0, ""))
