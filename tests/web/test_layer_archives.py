"""Layers as the real programs write them: sparse files of GNU tar and bsdtar in each of their forms, and frames of zstd
and pzstd.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import random
import tarfile
import unittest
from pathlib import Path

from tests.support.in_process import directory_in_memory
from tests.support.layers import HAS_ZSTD, cut, listed, with_sum
from tests.support.programs import require
from tests.support.registries import run
from tests.support.tars import archive, member

_LONG = "/".join(["directory-of-a-long-name"] * 6) + "/var-log-faillog"
# Each file: its size, and where it has 4 KiB of data.
FILES = {
    "usual": (5000, [0]),
    "var-log-lastlog": (31_457_280, [0, 1_048_576, 31_453_184]),
    # More pieces than fit into the first block of a map.
    _LONG: (20_000_000, list(range(0, 20_000_000, 262_144))),
    "nothing-but-a-hole": (1_000_000, []),
}


class SparseFiles(unittest.TestCase):
    directory: Path

    @classmethod
    def setUpClass(cls) -> None:
        """Make files with holes."""
        context = directory_in_memory()
        cls.addClassCleanup(context.__exit__, None, None, None)
        cls.directory = Path(context.__enter__())
        for name, (size, pieces) in FILES.items():
            path = cls.directory / "tree" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(size)
                for offset in pieces:
                    file.seek(offset)
                    file.write(os.urandom(min(4096, size - offset)))

    def check(self, form: str, *command: str) -> bytes:
        """Have a program pack the files, and compare the list with what they are."""
        packed = self.directory / "layer.tar"
        run(*command, str(packed), "-C", str(self.directory / "tree"), *FILES)
        content = packed.read_bytes()
        # It did write holes as holes.
        self.assertLess(len(content), 2_000_000)
        with self.subTest(form):
            self.assertEqual(
                {entry.path: entry.size for entry in listed(content)}, {name: size for name, (size, _) in FILES.items()}
            )
        return content

    def test_gnu_tar_writes_them_in_four_ways(self) -> None:
        tar = require("tar", "tar")
        self.assertIn(b"\0S", _kinds(self.check("gnu", tar, "-S", "--format=gnu", "-cf")))
        for version in ("0.0", "0.1", "1.0"):
            content = self.check(version, tar, "-S", "--format=posix", f"--sparse-version={version}", "-cf")
            self.assertIn(b"GNU.sparse.", content)

    def test_bsdtar_writes_them_without_being_asked(self) -> None:
        content = self.check("bsdtar", require("bsdtar", "libarchive-tools"), "-cf")
        self.assertIn(b"GNUSparseFile", content)

    def test_what_follows_a_sparse_file_is_found(self) -> None:
        # Old GNU format, GNU tar 1.34: `tar -S --format=gnu -cf` of a file of 4 KiB at 1 MiB with 30 pieces writes one
        # block of map more.
        sparse = bytearray(tarfile.TarInfo("s").tobuf(tarfile.GNU_FORMAT))
        sparse[156:157], sparse[124:136], sparse[482], sparse[483:495] = (
            tarfile.GNUTYPE_SPARSE,
            b"00000000002\0",
            1,
            b"00004000000\0",
        )
        content = with_sum(sparse) + bytes(512) + b"xy".ljust(512, b"\0") + archive(member("next", content=b"abc"))
        self.assertEqual([(entry.path, entry.size) for entry in listed(content)], [("s", 1024**2), ("next", 3)])

    def test_names_and_sizes_in_records_count_where_they_say_something(self) -> None:
        # POSIX, pax: an empty value takes back what a global header said; GNU tar 1.34 writes both a path and
        # GNU.sparse.name.
        records = {
            "path": "GNUSparseFile.1/x",
            "GNU.sparse.name": "real",
            "GNU.sparse.realsize": "77",
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
        }
        first = member("header", content=b"12345")
        first[0].pax_headers = records
        second = member("kept", content=b"1")
        second[0].pax_headers = {"path": "", "size": "", "GNU.sparse.realsize": "x"}
        self.assertEqual(
            [(entry.path, entry.size) for entry in listed(archive(first, second))], [("real", 77), ("kept", 1)]
        )


def _kinds(content: bytes) -> bytes:
    """List the types of members, each behind a zero byte."""
    with tarfile.open(fileobj=io.BytesIO(content)) as reader:
        return b"".join(b"\0" + info.type for info in reader)


class Prefixes(unittest.TestCase):
    def test_times_where_others_have_a_prefix_are_no_part_of_a_name(self) -> None:
        # GNU tar 1.34 with --listed-incremental and --format=gnu writes the times of access and change there.
        block = bytearray(tarfile.TarInfo("name").tobuf(tarfile.GNU_FORMAT))
        block[345:369] = b"14712345670\00014712345670\0"
        self.assertEqual([entry.path for entry in listed(with_sum(block))], ["name"])

    def test_gnu_tar_writes_times_of_incremental_archives_there(self) -> None:
        with directory_in_memory() as directory:
            Path(directory, "d").mkdir()
            Path(directory, "d", "file").write_bytes(b"x")
            run(
                require("tar", "tar"),
                "-g",
                f"{directory}/snapshot",
                "--format=gnu",
                "-cf",
                f"{directory}/a.tar",
                "-C",
                directory,
                "d",
            )
            self.assertEqual(
                [entry.path.rstrip("/") for entry in listed(Path(directory, "a.tar").read_bytes())], ["d", "d/file"]
            )

    def test_a_long_path_is_put_together_from_prefix_and_name(self) -> None:
        name = "/".join(["directory"] * 14)
        self.assertEqual([entry.path for entry in listed(archive(member(name), form=tarfile.USTAR_FORMAT))], [name])


@unittest.skipUnless(HAS_ZSTD, "this Python has no zstd")
class Frames(unittest.TestCase):
    directory: Path
    content: bytes
    paths: list[str]

    @classmethod
    def setUpClass(cls) -> None:
        """Make an archive of more than 32 MiB that does not become much smaller."""
        context = directory_in_memory()
        cls.addClassCleanup(context.__exit__, None, None, None)
        cls.directory = Path(context.__enter__())
        chance = random.Random(1)
        cls.paths = [f"file-{number}" for number in range(40)]
        cls.content = archive(*(member(path, content=chance.randbytes(1024 * 1024)) for path in cls.paths))
        Path(cls.directory, "layer.tar").write_bytes(cls.content)

    def packed(self, *command: str) -> bytes:
        """Have a program compress the archive."""
        target = self.directory / "packed"
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
        run(*command, str(self.directory / "layer.tar"), "-o", str(target))
        return target.read_bytes()

    def test_windows_of_all_levels_of_skopeo_are_read(self) -> None:
        zstd = require("zstd", "zstd")
        for flags in (("-1",), ("-1", "--long=24"), ("-1", "--long=25")):
            with self.subTest(flags):
                self.assertEqual([entry.path for entry in listed(self.packed(zstd, *flags))], self.paths)

    def test_a_window_that_takes_too_much_memory_is_named(self) -> None:
        # Of its size it is also when the content has it, and so is its own window.
        packed = self.packed(require("zstd", "zstd"), "-1", "--long=27")
        self.assertRegex(
            cut(packed)[1], "needs a window of (41|128) MiB, and this registry looks through windows of up to 32 MiB"
        )

    def test_a_frame_that_ends_in_its_own_header_is_damaged(self) -> None:
        packed = importlib.import_module("compression.zstd").compress(archive(member("a", content=b"a")))
        for count in range(4, 20):
            with self.subTest(count):
                self.assertIn("its compression is broken here", cut(packed[:count])[1])

    def test_frames_that_are_to_be_skipped_are_skipped_wherever_they_are(self) -> None:
        packed = self.packed(require("pzstd", "zstd"), "-1", "-p", "2")
        self.assertEqual(packed[1:4], b"\x2a\x4d\x18")
        self.assertEqual([entry.path for entry in listed(packed)], self.paths)

    def test_a_layer_of_many_frames_with_a_table_behind_them_is_read_to_its_end(self) -> None:
        # zstd:chunked (containers/storage 1.43, pkg/chunked/compressor): a frame for each file, then skippable frames
        # with table and footer.
        zstd = importlib.import_module("compression.zstd")
        content = archive(*(member(f"{number}", content=b"x" * 700) for number in range(30)))
        frames = b"".join(zstd.compress(content[start : start + 1000]) for start in range(0, len(content), 1000))
        for number, size in ((0x50, 200_000), (0x5F, 64)):
            frames += bytes([number]) + b"\x2a\x4d\x18" + size.to_bytes(4, "little") + bytes(size)
        self.assertEqual(len(listed(frames)), 30)
