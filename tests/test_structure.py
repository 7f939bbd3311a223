"""The shape of the program: imports point down, only the standard library, SQL and sockets in their places, nothing too long."""

from __future__ import annotations

import ast
import fnmatch
import importlib.util
import re
import sysconfig
import unittest
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
PACKAGE = TOP / "vex"

# A module imports only from rows above its own. `pages` is a package, which counts as one here.
LEVELS = (
    {"errors", "routes", "metrics", "markup", "answers", "pulls", "received", "progress", "forwarded", "dashboard", "dockerfile", "files", "attempts"},
    {"logs", "turns", "der", "p256"},
    {"readers"},
    {"compression", "foreign_json"},
    {"unpacking"},
    {"kinds", "x509"},
    {"names", "config", "fields", "wire", "database", "certificate", "layers", "addresses", "remote", "throttle"},
    {"byteranges", "slots"},
    {"sending"},
    {"manifest", "blobs", "store", "removal", "accounts", "identity", "measures", "audit"},
    {"layer_lists", "folders"},
    {"image_files", "copying"},
    {"message", "pace", "endpoints", "image", "references", "upload_files", "users", "timekeeping"},
    {"directory"},
    {"connection", "catalog", "faults", "layout", "tokens", "bearer", "sockets", "tls", "notify", "large"},
    {"uploads", "locations", "manifest_bodies"},
    {"server", "credentials"},
    {"summaries", "reload", "certificate_files"},
    {"pushing", "deleting"},
    {"registry"},
    {"listing"},
    {"discovery"},
    {"api", "archive", "browsing", "housekeeping", "granting"},
    {"pages"},
    {"app"},
    {"observations"},
    {"serve"},
    {"quickstart", "check", "token_commands"},
    {"sources"},
    {"sources"},
    {"backup", "exporting", "importing", "trail"},
    {"cli"},
)
LEVEL_OF = {module: level for level, modules in enumerate(LEVELS) for module in modules}

# What only a few modules may import, and which.
RESERVED = {
    "socket": {"connection", "sending", "server", "sockets", "notify"},
    "http.server": {"server"},
    "ssl": {"connection", "remote", "server", "tls"},
    "sqlite3": {"database", "readers", "cli", "check"},  # cli for the version that it prints, check for the errors of a broken database
    "subprocess": set(),
    "urllib.request": set(),
    "http.client": {"remote"},
}
# The queries of the web interface are in catalog.py, those of `vex check` in faults.py, those of the audit trail in audit.py.
MODULES_WITH_SQL = {"database", "readers", "store", "accounts", "catalog", "faults", "audit", "removal"}
SQL = re.compile(r"\s*(SELECT\s|INSERT\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|REPLACE\s+INTO\s|PRAGMA\s|CREATE\s+(TABLE|INDEX)\s|BEGIN\s+IMMEDIATE)")
MAX_FUNCTION_LINES = 50
MAX_MODULE_LINES = 450


def sources() -> Iterator[tuple[Path, ast.Module]]:
    """Give all modules of Vex, parsed as Python 3.9 would."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 9))


def unit_of(path: Path) -> str:
    """Name the module, or the package below `vex`, that a file belongs to; "" for `vex/__init__.py`."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.partition(".")[0]


def imports(tree: ast.Module) -> Iterator[str]:
    """Give the full names of what a module imports when it runs; what a type checker alone needs is left out."""
    for_types = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def docstrings(tree: ast.Module) -> set[int]:
    """Identify the constants that are docstrings."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, holders) and node.body and isinstance(node.body[0], ast.Expr)}


class Imports(unittest.TestCase):
    def test_every_module_has_a_level_and_every_level_its_modules(self) -> None:
        self.assertEqual({unit_of(path) for path, _ in sources()} - {""}, set(LEVEL_OF), "give a new module its level in the table above")

    def test_imports_point_down(self) -> None:
        for path, tree in sources():
            unit = unit_of(path)
            for name in imports(tree):
                self.assertFalse(name.startswith("."), f"{path.name}: imports are written in full")
                parts = name.split(".")
                # "from vex import VERSION" takes from vex/__init__.py, which is below everything.
                if parts[0] != "vex" or parts[1] not in LEVEL_OF or parts[1] == unit:
                    continue
                with self.subTest(f"{path.name}: {name}"):
                    self.assertLess(LEVEL_OF[parts[1]], LEVEL_OF.get(unit, len(LEVELS)))

    def test_imports_within_a_package_have_no_cycle(self) -> None:
        for package in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
            prefix = f"vex.{package.name}."
            names = {path.stem for path in package.glob("*.py")} - {"__init__"}
            wants = {
                path.stem: {name[len(prefix) :].partition(".")[0] for name in imports(tree) if name.startswith(prefix)} & names
                for path, tree in sources()
                if path.parent == package
            }
            while free := {name for name, wanted in wants.items() if not wanted}:
                wants = {name: wanted - free for name, wanted in wants.items() if name not in free}
            self.assertEqual(wants, {}, f"these modules of {package.name} import one another")

    def test_only_the_standard_library_is_imported(self) -> None:
        library = Path(sysconfig.get_paths()["stdlib"]).resolve()
        found = {name.partition(".")[0] for path, tree in sources() for name in imports(tree)} - {"vex"}
        self.assertIn("sqlite3", found)
        for name in sorted(found):
            with self.subTest(name):
                spec = importlib.util.find_spec(name)
                assert spec is not None, f"{name} is not there"
                origin = spec.origin or ""
                if origin not in ("built-in", "frozen"):
                    self.assertIn(library, Path(origin).resolve().parents)
                    self.assertNotRegex(origin, "(site|dist)-packages")

    def test_what_touches_the_outside_is_in_its_place(self) -> None:
        for path, tree in sources():
            for name in imports(tree):
                for reserved, modules in RESERVED.items():
                    if name == reserved or name.startswith(f"{reserved}."):
                        self.assertIn(unit_of(path), modules, f"{path.name} imports {name}")


class Contents(unittest.TestCase):
    def test_sql_is_where_the_queries_are(self) -> None:
        seen = set()
        for path, tree in sources():
            skipped = docstrings(tree)
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped and SQL.match(node.value):
                    seen.add(unit_of(path))
                    self.assertIn(unit_of(path), MODULES_WITH_SQL, f"{path.name}, line {node.lineno}")
        self.assertEqual(seen, MODULES_WITH_SQL)

    def test_modules_are_not_too_long_and_say_what_they_are_for(self) -> None:
        for path, tree in sources():
            with self.subTest(path.name):
                self.assertLess(len(path.read_text(encoding="utf-8").splitlines()), MAX_MODULE_LINES)
                self.assertTrue(ast.get_docstring(tree))

    def test_functions_are_not_too_long(self) -> None:
        for path, tree in sources():
            for node in ast.walk(tree):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    lines = (node.end_lineno or node.lineno) - node.lineno + 1
                    self.assertLess(lines, MAX_FUNCTION_LINES, f"{path.name}: {node.name}")

    def test_no_module_is_named_for_nothing(self) -> None:
        names = {path.stem for path, _ in sources()}
        self.assertEqual(names & {"utils", "util", "helpers", "helper", "common", "manager", "misc"}, set())

    def test_the_top_holds_what_belongs_there_and_nothing_else(self) -> None:
        ignored = [line.strip("/") for line in (TOP / ".gitignore").read_text().splitlines()]
        visible = {path.name for path in TOP.iterdir() if not any(fnmatch.fnmatch(path.name, pattern) for pattern in (".*", *ignored))}
        self.assertEqual(visible, {"vex.py", "vex", "tests", "findings", "README.md", "LICENSE", "zipapp.sh"})
