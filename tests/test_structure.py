"""The shape of the program: imports point down, only the standard library, SQL and sockets in their places, nothing too
long.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import importlib.util
import re
import sysconfig
import unittest
from collections.abc import Iterator
from pathlib import Path

from vex.web.manual import SUBJECTS

TOP = Path(__file__).resolve().parent.parent
PACKAGE = TOP / "vex"

# The rooms, and which of them each may import from; the words are for all, and each other downwards.
WORDS = ("errors", "names", "logs", "metrics", "progress")
ROOMS: dict[str, set[str]] = {
    "formats": set(),
    "settings": set(),
    "http": {"settings"},
    "storage": {"formats", "settings"},
    "registry": {"formats", "storage"},
    "access": {"http", "storage"},
    "transfer": {"formats", "settings", "http", "storage", "registry", "access"},
}
ROOMS["api"] = {*ROOMS}
ROOMS["web"] = {*ROOMS}
ROOMS["service"] = {*ROOMS}
ROOMS["commands"] = {*ROOMS}
# A client of other registries has nothing to do with how this one listens.
NOT_FOR_TRANSFER = {
    f"http.{module}" for module in ("connection", "server", "sockets", "certificates", "pace", "slots", "sending")
}
# Who starts a server, or does what one does where none runs; other commands do without.
STARTS_THE_SERVICE = {"commands.cli", "commands.acting"}

# Who imports a module of Vex within a function: the list of what is loaded after `ready`, and, before that, what only
# some configurations need. A command loads what it needs when it runs, so that the others start quickly.
LOADED_LATER = {"service.loading"}
LOADED_WHERE_CONFIGURED = {"service.building", "http.certificates"}

# What only a few may import: rooms, or modules.
RESERVED = {
    "socket": {"http", "transfer", "service.notify"},
    "http.server": {"http.server"},
    "ssl": {"http", "transfer"},
    "sqlite3": {
        "storage",
        "commands.cli",
        "commands.check",
    },  # cli for the version that it prints, check for the errors of a broken database
    "subprocess": set(),
    "urllib.request": set(),
    "http.client": {"commands.acting", "transfer.remote", "transfer.replies", "transfer.steady"},
}
SQL = re.compile(
    r"\s*(SELECT\s|INSERT\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|REPLACE\s+INTO\s|PRAGMA\s|CREATE\s+(TABLE|INDEX)\s|BEGIN\s+IMMEDIATE)"
)
MAX_FUNCTION_LINES = 45
MAX_MODULE_LINES = 400


@functools.cache
def sources() -> list[tuple[Path, ast.Module]]:
    """Give all modules of Vex, parsed as Python 3.9 would."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return [(path, ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 9))) for path in paths]


def name_of(path: Path) -> str:
    """Name a module below `vex`, as `http.heads`; "" for `vex/__init__.py`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path) for path in PACKAGE.rglob("*.py")}


def room_of(module: str) -> str:
    """Name the room of a module; "" for a word."""
    return module.rpartition(".")[0]


def module_in(imported: str) -> str:
    """Name the module of Vex that the full name of something imported is in; "" for anybody else's, and for
    `vex/__init__.py`.
    """
    name = imported.partition(".")[2] if imported.startswith("vex.") else ""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def imports(tree: ast.AST) -> Iterator[str]:
    """Give the full names of what a module imports, for the type checker alone too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def docstrings(tree: ast.Module) -> set[int]:
    """Identify the constants that are docstrings."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, holders) and node.body and isinstance(node.body[0], ast.Expr)
    }


class Imports(unittest.TestCase):
    def test_every_module_is_a_word_or_in_a_room(self) -> None:
        self.assertEqual({module for module in MODULES if "." not in module}, {"", *WORDS, *ROOMS})
        self.assertEqual({room_of(module) for module in MODULES}, {"", *ROOMS})

    def test_imports_between_rooms_point_down(self) -> None:
        for path, tree in sources():
            module = name_of(path)
            room = room_of(module)
            for name in imports(tree):
                self.assertFalse(name.startswith("."), f"{path.name}: imports are written in full")
                wanted = module_in(name)
                if not wanted or room_of(wanted) == room:
                    continue
                with self.subTest(f"{module} imports {name}"):
                    self.assertTrue(self._may_import(module, wanted))

    def _may_import(self, module: str, wanted: str) -> bool:
        room, wanted_room = room_of(module), room_of(wanted)
        if wanted_room == "":
            return wanted in WORDS
        if room == "transfer" and wanted in NOT_FOR_TRANSFER:
            return False
        if room == "commands" and wanted_room == "service":
            return module in STARTS_THE_SERVICE
        return wanted_room in ROOMS.get(room, set())

    def test_words_and_rooms_have_no_circle_inside(self) -> None:
        for room in ("", *ROOMS):
            wants = {
                name_of(path): {
                    wanted for wanted in map(module_in, imports(tree)) if wanted and room_of(wanted) == room
                }
                for path, tree in sources()
                if room_of(name_of(path)) == room and name_of(path)
            }
            while free := {name for name, wanted in wants.items() if not wanted}:
                wants = {name: wanted - free for name, wanted in wants.items() if name not in free}
            self.assertEqual(wants, {}, f"these modules of {room or 'the words'} import one another")

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

    def test_what_is_loaded_later_is_in_one_list(self) -> None:
        found = set()
        for path, tree in sources():
            within = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
            for function in within:
                if any(module_in(name) for name in imports(function)):
                    found.add(name_of(path))
        self.assertEqual(
            {module for module in found if room_of(module) != "commands"}, LOADED_LATER | LOADED_WHERE_CONFIGURED
        )

    def test_what_touches_the_outside_is_in_its_place(self) -> None:
        for path, tree in sources():
            for name in imports(tree):
                for reserved, modules in RESERVED.items():
                    if name == reserved or name.startswith(f"{reserved}."):
                        self.assertTrue(
                            {name_of(path), room_of(name_of(path))} & modules, f"{name_of(path)} imports {name}"
                        )

    def test_what_tests_share_is_in_no_test_module(self) -> None:
        for path in (TOP / "tests").rglob("*.py"):
            for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
                self.assertNotRegex(name, r"^tests\.(\w+\.)?test_", path.name)


class Contents(unittest.TestCase):
    def test_sql_is_in_storage_alone(self) -> None:
        seen = set()
        for path, tree in sources():
            skipped = docstrings(tree)
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and id(node) not in skipped
                    and SQL.match(node.value)
                ):
                    seen.add(room_of(name_of(path)))
        self.assertEqual(seen, {"storage"})

    def test_modules_are_not_too_long_and_say_what_they_are_for(self) -> None:
        for path, tree in sources():
            with self.subTest(path.name):
                self.assertLessEqual(len(path.read_text(encoding="utf-8").splitlines()), MAX_MODULE_LINES)
                self.assertTrue(ast.get_docstring(tree))

    def test_functions_are_not_too_long(self) -> None:
        for path, tree in sources():
            for node in ast.walk(tree):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    lines = (node.end_lineno or node.lineno) - node.lineno + 1
                    self.assertLessEqual(lines, MAX_FUNCTION_LINES, f"{path.name}: {node.name}")

    def test_files_that_the_text_names_are_there(self) -> None:
        there = {str(path.relative_to(TOP)) for path in PACKAGE.rglob("*") if path.is_file()}
        for path in sorted(
            path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".sql", ".html", ".css", ".js")
        ):
            for name in re.findall(r"`([a-z0-9_/-]+\.(?:py|sql|html|css|js))`", path.read_text(encoding="utf-8")):
                with self.subTest(f"{path.name}: {name}"):
                    self.assertTrue(any(f"/{file}".endswith(f"/{name}") for file in there))

    def test_no_two_classes_have_one_name(self) -> None:
        classes = [node.name for _, tree in sources() for node in tree.body if isinstance(node, ast.ClassDef)]
        self.assertEqual({name for name in classes if classes.count(name) > 1}, set())

    def test_no_module_is_named_for_nothing(self) -> None:
        names = {path.stem for path, _ in sources()}
        self.assertEqual(names & {"utils", "util", "helpers", "helper", "common", "manager", "misc"}, set())

    def test_each_page_of_the_manual_is_in_its_list(self) -> None:
        # In vex/web/manual.py, in the order in which `vex help` and /help/ show them.
        self.assertEqual(sorted(SUBJECTS), sorted(path.stem for path in (PACKAGE / "manual").glob("*.md")))

    def test_the_top_holds_what_belongs_there_and_nothing_else(self) -> None:
        ignored = [line.strip("/") for line in (TOP / ".gitignore").read_text().splitlines()]
        visible = {
            path.name
            for path in TOP.iterdir()
            if not any(fnmatch.fnmatch(path.name, pattern) for pattern in (".*", *ignored))
        }
        self.assertEqual(visible, {"vex.py", "vex", "tests", "findings", "README.md", "LICENSE", "zipapp.sh"})
