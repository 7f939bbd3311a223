"""Listing the files of layers: what is in them, and what is not a layer at all."""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import tarfile
import unittest

from tests.support.layers import HAS_ZSTD, cut, listed, with_sum
from tests.support.tars import archive, member
from vex.formats.layer import DELETED, DEVICE, DIRECTORY, FILE, LINK, OPAQUE, SYMLINK, Entry, Limits
from vex.formats.tar_headers import Incomplete

# The frame of `printf '' | zstd`: magic, an empty block, the checksum (RFC 8878, section 3.1.1).
_EMPTY_ZSTD = bytes.fromhex("28b52ffd2400010000" + "99e9d851")


def paths(content: bytes) -> list[str]:
    return [entry.path for entry in listed(content)]


class Files(unittest.TestCase):
    def test_a_file_has_its_path_size_mode_and_owner(self) -> None:
        content = archive(member("etc/passwd", content=b"root", mode=0o640, uid=10, gid=20))
        self.assertEqual(listed(content), [Entry(FILE, "etc/passwd", 4, "-rw-r-----", "10:20", "")])

    def test_set_user_id_and_sticky_bits_are_shown_as_ls_does(self) -> None:
        content = archive(member("bin/su", mode=0o4755), member("tmp", tarfile.DIRTYPE, mode=0o1777))
        self.assertEqual([entry.mode for entry in listed(content)], ["-rwsr-xr-x", "drwxrwxrwt"])

    def test_other_kinds_have_a_size_of_zero_and_links_their_target(self) -> None:
        content = archive(
            member("bin", tarfile.SYMTYPE, linkname="usr/bin"),
            member("a", tarfile.LNKTYPE, linkname="b"),
            member("dev/null", tarfile.CHRTYPE),
            member("var", tarfile.DIRTYPE),
        )
        self.assertEqual(
            [(entry.kind, entry.path, entry.size, entry.target) for entry in listed(content)],
            [
                (SYMLINK, "bin", 0, "usr/bin"),
                (LINK, "a", 0, "b"),
                (DEVICE, "dev/null", 0, ""),
                (DIRECTORY, "var/", 0, ""),
            ],
        )

    def test_whiteouts_are_what_they_delete(self) -> None:
        # OCI image specification 1.1, "Whiteouts" and "Opaque Whiteout"
        content = archive(member("a/.wh.b"), member(".wh.c"), member("d/.wh..wh..opq"), member(".wh..wh..opq"))
        self.assertEqual(
            [(entry.kind, entry.path) for entry in listed(content)],
            [(DELETED, "a/b"), (DELETED, "c"), (OPAQUE, "d"), (OPAQUE, "/")],
        )

    def test_long_names_are_read_in_the_forms_of_gnu_and_of_pax(self) -> None:
        name = "/".join(["directory-of-a-long-name"] * 20)
        for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            with self.subTest(form):
                link = member("l", tarfile.SYMTYPE, linkname=name)
                self.assertEqual(
                    [(e.path, e.target) for e in listed(archive(member(name, content=b"x"), link, form=form))],
                    [(name, ""), ("l", name)],
                )

    def test_names_that_are_not_ascii_are_kept(self) -> None:
        self.assertEqual(paths(archive(member("größe/日本"))), ["größe/日本"])

    def test_a_size_in_an_extended_header_counts(self) -> None:
        # What stands behind a file of 8 GiB and more is found by that size; a small one shows the same.
        info = member("a", content=b"x" * 600)
        info[0].pax_headers = {"size": "600"}
        self.assertEqual(
            [(entry.path, entry.size) for entry in listed(archive(info, member("b")))], [("a", 600), ("b", 0)]
        )

    def test_an_empty_archive_has_no_files(self) -> None:
        for content in (b"", archive(), gzip.compress(archive())):
            self.assertEqual(listed(content), [])


class Compression(unittest.TestCase):
    def test_gzip_is_unpacked(self) -> None:
        self.assertEqual(paths(gzip.compress(archive(member("a"), member("b")))), ["a", "b"])

    def test_gzip_in_several_members_is_unpacked(self) -> None:
        # As pigz and eStargz write it; the last of them empty.
        content = archive(member("a", content=b"x" * 2000), member("b"))
        pieces = b"".join(gzip.compress(content[start : start + 700]) for start in range(0, len(content), 700))
        self.assertEqual(paths(pieces + gzip.compress(b"")), ["a", "b"])

    def test_broken_gzip_cuts_the_list(self) -> None:
        whole = gzip.compress(archive(*(member(f"{number}", content=bytes([number] * 1000)) for number in range(200))))
        count, reason = cut(whole[: len(whole) // 2])
        self.assertTrue(0 < count < 200)
        self.assertIn("damaged", reason)
        self.assertEqual(
            cut(whole[:10] + b"\xff" * 100),
            (0, "This list is cut: the layer is damaged, its compression is broken here."),
        )

    @unittest.skipIf(HAS_ZSTD, "this Python reads zstd")
    def test_zstd_is_said_to_be_unreadable_where_python_has_none(self) -> None:
        self.assertEqual(cut(_EMPTY_ZSTD)[0], 0)
        self.assertIn("zstd", cut(_EMPTY_ZSTD)[1])

    @unittest.skipUnless(HAS_ZSTD, "this Python has no zstd")
    def test_zstd_is_unpacked(self) -> None:
        zstd = importlib.import_module("compression.zstd")
        content = archive(member("a"), member("b"))
        self.assertEqual(paths(zstd.compress(content[:700]) + zstd.compress(content[700:])), ["a", "b"])
        self.assertEqual(listed(_EMPTY_ZSTD), [])


class LimitsOfReading(unittest.TestCase):
    def test_headers_are_limited(self) -> None:
        content = archive(*(member(str(number)) for number in range(11)))
        self.assertEqual(
            cut(content, Limits(headers=10)), (10, "This list is cut: the layer has more than 10 headers.")
        )
        self.assertEqual(len(listed(content, Limits(headers=11))), 11)

    def test_headers_of_headers_and_of_what_is_not_shown_count(self) -> None:
        for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
            self.assertEqual(cut(archive(*[member("x", kind, b"x")] * 11), Limits(headers=10))[0], 0)
        self.assertEqual(cut(archive(*[member(".wh..wh.aufs")] * 11), Limits(headers=10))[0], 0)
        sparse = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
        sparse[156:157], sparse[482] = tarfile.GNUTYPE_SPARSE, 1
        more = bytearray(512)
        more[504] = 1
        self.assertEqual(cut(with_sum(sparse) + bytes(more) * 11, Limits(headers=10))[0], 0)

    def test_unpacked_bytes_are_limited(self) -> None:
        content = archive(member("first"), member("large", content=bytes(5 * 1024 * 1024)), member("last"))
        count, reason = cut(content, Limits(unpacked=4 * 1024 * 1024))
        self.assertEqual(count, 2)
        self.assertIn("4 MiB", reason)

    def test_zeros_are_listed_however_well_they_are_packed(self) -> None:
        content = gzip.compress(
            archive(member("first"), member("zeros", content=bytes(64 * 1024 * 1024)), member("last"))
        )
        self.assertGreater(64 * 1024 * 1024 / len(content), 1000)
        self.assertEqual(
            [(entry.path, entry.size) for entry in listed(content)],
            [("first", 0), ("zeros", 64 * 1024 * 1024), ("last", 0)],
        )

    def test_time_is_limited(self) -> None:
        content = archive(*(member(str(number), content=bytes(100_000)) for number in range(20)))
        count, reason = cut(content, Limits(seconds=5), itertools.count(0.0, 1.0))
        self.assertTrue(0 < count < 20)
        self.assertIn("5 seconds", reason)

    def test_headers_and_their_records_take_time_too(self) -> None:
        records = member("x", tarfile.XHDTYPE, b"6 a=b\n" * 10_000)
        for content in (archive(*[member(".wh..wh.aufs")] * 50), archive(records)):
            count, reason = cut(content, Limits(seconds=20), itertools.count(0.0, 1.0))
            self.assertEqual(count, 0)
            self.assertIn("20 seconds", reason)

    def test_what_unpacks_to_nothing_takes_time_too(self) -> None:
        count, reason = cut(gzip.compress(b"") * 100, Limits(seconds=50), itertools.count(0.0, 1.0))
        self.assertEqual(count, 0)
        self.assertIn("50 seconds", reason)


class Hostile(unittest.TestCase):
    def test_what_is_no_archive_is_said_to_be_none(self) -> None:
        for content in (b"{}", b"x" * 5000, gzip.compress(b"hello" * 500), b"\x1f\x8b" + b"x" * 600):
            self.assertEqual(cut(content)[0], 0)

    def test_an_archive_that_ends_in_a_file_is_cut(self) -> None:
        content = archive(member("a"), member("b", content=bytes(2000)))
        self.assertEqual(cut(content[:2000])[0], 2)

    def test_an_extended_header_of_any_size_is_not_kept_in_memory(self) -> None:
        for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            info = member("x", kind, bytes(300_000))
            count, reason = cut(archive(info))
            self.assertEqual(count, 0)
            self.assertIn("extraordinary length", reason)

    def test_a_chain_of_long_names_does_not_recurse(self) -> None:
        block = tarfile.TarInfo("x")
        block.type, block.size = tarfile.GNUTYPE_LONGNAME, 1
        link = block.tobuf(tarfile.GNU_FORMAT) + b"y".ljust(512, b"\0")
        self.assertEqual(paths(link * 5000 + archive(member("a"))), ["y"])

    def test_malformed_pax_records_end_them(self) -> None:
        for record in (b"9999 path=x\n", b"0 path=x\n", b"x path=x\n", b"2 \n", b"-5 path=x\n", b"1\n", b"\0" * 10):
            info = member("x", tarfile.XHDTYPE, record)
            self.assertEqual(paths(archive(info)[:1024] + archive(member("name"))), ["name"], record)

    def test_a_size_below_zero_is_refused(self) -> None:
        block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
        block[124:136] = b"\xff" * 12
        self.assertIn("below zero", cut(with_sum(block))[1])

    def test_every_single_wrong_byte_of_a_header_ends_well(self) -> None:
        content = bytearray(archive(member("a", content=b"x"), member("b")))
        for position in range(512):
            for value in (0, 0xFF, 0x39):
                changed = bytes(content[:position]) + bytes([value]) + bytes(content[position + 1 :])
                try:
                    listed(changed)
                except Incomplete:
                    continue

    def test_every_truncation_ends_well(self) -> None:
        content = gzip.compress(archive(member("a", content=b"x" * 3000), member("é" * 60)))
        for length in range(len(content)):
            try:
                listed(content[:length])
            except Incomplete:
                continue
