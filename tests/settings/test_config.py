"""The configuration: what a file and flags can say, and what each mistake is answered with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unittest
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from tests.support.configuration import ConfigTestCase
from vex.errors import Failure
from vex.settings.config import KEYS, Config
from vex.settings.file import describe, load
from vex.settings.values import Address, UnixAddress

TOP = Path(__file__).resolve().parent.parent.parent

# Sections 9 and 10 of the design.
DEFAULTS = {
    "public-addr": Address("localhost", 8200),
    "auth-addr": Address("localhost", 8201),
    "internal-addr": Address("localhost", 8202),
    "public-tls-cert": None,
    "public-tls-key": None,
    "auth-tls-cert": None,
    "auth-tls-key": None,
    "internal-tls-cert": None,
    "internal-tls-key": None,
    "public-url": "",
    "anonymous-read": False,
    "identity-tokens": False,
    "trusted-proxies": (),
    "locations": "auto",
    "blob-redirect": "",
    "accel-redirect": "",
    "data-dir": Path("data"),
    "upload-expiry": 24 * 3600,
    "pull-grace": 600,
    "keep-replaced": 0,
    "delete-untags": "no",
    "log-format": "auto",
    "log-level": "info",
    "access-log": None,
    "audit-keep": 365 * 24 * 3600,
    "request-line-limit": 8 * 1024,
    "header-fields-limit": 64,
    "header-bytes-limit": 32 * 1024,
    "manifest-limit": 4 * 1024 * 1024,
    "manifest-descriptors-limit": 20_000,
    "manifest-depth-limit": 64,
    "blob-limit": 64 * 1024**3,
    "free-space": 256 * 1024**2,
    "handshake-timeout": 5,
    "head-timeout": 10,
    "idle-timeout": 60,
    "stall-timeout": 30,
    "upload-timeout": 300,
    "minimum-rate": 1024,
    "public-connections": 512,
    "auth-connections": 128,
    "internal-connections": 16,
    "backlog": 128,
    "upload-sessions": 256,
    "page-size": 1000,
    "page-limit": 10000,
    "failed-logins": 10,
    "shutdown-timeout": 30,
}

# A key of each kind of values, and what a file can say there.
ACCEPTED = (
    ("public-addr", "localhost:8200", Address("localhost", 8200)),
    ("public-addr", "127.0.0.1:80", Address("127.0.0.1", 80)),
    ("public-addr", "registry.example.org:65535", Address("registry.example.org", 65535)),
    ("public-addr", ":8200", Address("", 8200)),
    ("public-addr", "[::1]:8200", Address("::1", 8200)),
    ("public-addr", "localhost:0", Address("localhost", 0)),
    ("public-addr", "off", None),
    ("public-addr", "unix:/run/vex/public.sock", UnixAddress(Path("/run/vex/public.sock"))),
    ("upload-expiry", "90s", 90),
    ("upload-expiry", "10m", 600),
    ("upload-expiry", "24h", 86400),
    ("upload-expiry", "7d", 604800),
    ("upload-expiry", "1.5h", 5400),
    ("pull-grace", "0", 0),
    ("pull-grace", "0s", 0),
    ("idle-timeout", "0.5s", 0.5),
    ("blob-limit", "256KiB", 262144),
    ("blob-limit", "4MiB", 4194304),
    ("blob-limit", "64GiB", 68719476736),
    ("blob-limit", "1TiB", 1099511627776),
    ("blob-limit", "1024", 1024),
    ("free-space", "0", 0),
    ("minimum-rate", "0", 0),
    ("backlog", "7", 7),
    ("delete-untags", "yes", "yes"),
    ("delete-untags", "no", "no"),
    ("delete-untags", "one", "one"),
    ("log-format", "json", "json"),
    ("log-level", "debug", "debug"),
    ("access-log", "", None),
    ("access-log", "stderr", "stderr"),
    ("access-log", "/var/log/vex/access.log", Path("/var/log/vex/access.log")),
    ("public-url", "", ""),
    ("public-url", "https://registry.example.org", "https://registry.example.org"),
    ("public-url", "http://registry.example.org:8200", "http://registry.example.org:8200"),
    ("public-url", "http://[::1]", "http://[::1]"),
    ("public-url", "http://[::1]:8200", "http://[::1]:8200"),
    ("trusted-proxies", "", ()),
    (
        "trusted-proxies",
        "127.0.0.1,10.0.0.0/8 , ::1, unix",
        (ip_network("127.0.0.1"), ip_network("10.0.0.0/8"), ip_network("::1"), "unix"),
    ),
    ("blob-redirect", "https://cdn.example/{digest}", "https://cdn.example/{digest}"),
    ("blob-redirect", "http://[::1]:80/a/{algorithm}/{encoded}?x=%20", "http://[::1]:80/a/{algorithm}/{encoded}?x=%20"),
)

REFUSED = (
    (
        "public-addr",
        (
            "",
            "localhost",
            "8200",
            "localhost:",
            "localhost:65536",
            "localhost:-1",
            "localhost:http",
            "localhost:٣",
            "::1:8200",
            "[::1]",
        ),
    ),
    (
        "public-addr",
        (
            "[zz]:80",
            "http://localhost:8200",
            "localhost:8200/",
            "a b:80",
            "Off",
            "none",
            "-x:80",
            "localhost:+80",
            "unix:",
            'unix:"/a"',
        ),
    ),
    (
        "upload-expiry",
        (
            "",
            "10",
            "10 m",
            "10M",
            "10min",
            "-10m",
            "1_0m",
            "٣m",
            "1h30m",
            "m",
            "0",
            "0s",
            "4000d",
            "999999999d",
            "inf",
            "nan",
        ),
    ),
    (
        "blob-limit",
        (
            "",
            "64GB",
            "64gib",
            "64G",
            "-1",
            "+1",
            "1_0",
            "1.5GiB",
            "٣",
            "0",
            "KiB",
            "99999999999999999999",
            "2000TiB",
            "1e3",
        ),
    ),
    ("backlog", ("", "0", "-1", "1.5", "1_0", "٣", "+5", "1KiB", "2000000", "many")),
    ("manifest-depth-limit", ("7", "501")),
    ("head-timeout", ("0", "0.05s")),
    ("delete-untags", ("", "true", "Yes", "1", "on")),
    (
        "public-url",
        (
            "registry.example.org",
            "ftp://a",
            "https://",
            "https://a/",
            "https://a/b",
            "https://a?b",
            "https://a:",
            "https://a:0",
            "https://u@a",
            "https://:80",
        ),
    ),
    ("public-url", ("http://unix:/a", "unix:/a")),
    (
        "trusted-proxies",
        ("localhost", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.1,", ",", "10.0.0.1 10.0.0.2", "*", "unix:/run/nginx.sock"),
    ),
    (
        "blob-redirect",
        (
            "https://cdn.example/",
            "https://cdn.example",
            "cdn.example/{digest}",
            "ftp://cdn.example/{digest}",
            "https://{digest}/x",
        ),
    ),
    (
        "blob-redirect",
        (
            "https://cdn.example/{digest}{size}",
            "https://cdn.example/{digest",
            "https:///{digest}",
            "https://a b/{digest}",
            "https://u@a/{digest}",
        ),
    ),
    ("accel-redirect", ("blobs", "/blobs", "blobs/", "/", "//", "/../", "/a b/", "/a//b/", "/%62/")),
    ("data-dir", ("", '"data"', "'data'")),
    ("log-format", ("", "JSON", "text json")),
    ("log-level", ("", "INFO", "trace")),
    ("access-log", ('"access.log"',)),
    ("public-tls-cert", ('"cert.pem"',)),
)


class ValuesTest(ConfigTestCase):
    def test_defaults_are_those_of_the_design(self) -> None:
        config = load(None, {})
        self.assertEqual({key.name: getattr(config, key.attribute) for key in KEYS}, DEFAULTS)

    def test_a_configuration_made_without_arguments_has_the_same_defaults(self) -> None:
        self.assertEqual(Config(), load(None, {}))

    def test_values_mean_the_same_in_a_file_and_as_a_flag(self) -> None:
        for name, text, expected in ACCEPTED:
            with self.subTest(key=name, value=text):
                self.assertEqual(self.value(self.load(f"{name} = {text}\n"), name), expected)
                self.assertEqual(self.value(load(None, {name: text}), name), expected)

    def test_a_value_that_does_not_parse_names_file_line_key_value_and_what_is_accepted(self) -> None:
        accepts = {key.name: key.accepts for key in KEYS}
        for name, texts in REFUSED:
            for text in texts:
                with self.subTest(key=name, value=text):
                    self.refused(
                        f"# first line\n{name} = {text}\n", f"{self.path}, line 2: {name}: ", repr(text), accepts[name]
                    )

    def test_a_flag_that_does_not_parse_names_the_flag(self) -> None:
        message = self.refused("", "'64GB'", "256KiB", blob_limit="64GB")
        self.assertTrue(message.startswith("--blob-limit: "), message)
        self.assertNotIn(str(self.path), message)

    def test_a_value_with_control_characters_is_shown_escaped_and_a_long_one_cut(self) -> None:
        self.refused("", r"'\x1b[2J\n'", backlog="\x1b[2J\n")
        self.assertLess(len(self.refused("", "...", backlog="9" * 10_000)), 300)

    def test_the_smallest_and_largest_values_are_told_and_accepted(self) -> None:
        self.refused("manifest-depth-limit = 501", "at least 8", "at most 500")
        self.assertEqual(self.load("manifest-depth-limit = 500").manifest_depth_limit, 500)
        self.assertEqual(self.load("manifest-depth-limit = 8").manifest_depth_limit, 8)

    def test_addresses_print_as_they_are_written(self) -> None:
        for text in ("localhost:8200", ":8200", "[::1]:8200", "127.0.0.1:0"):
            with self.subTest(text):
                self.assertEqual(str(load(None, {"public-addr": text}).public_addr), text)

    def test_a_configuration_does_not_change(self) -> None:
        with self.assertRaises(AttributeError):
            Config().backlog = 1  # type: ignore[misc]

    def value(self, config: Config, name: str) -> Any:
        return getattr(config, name.replace("-", "_"))


class FileTest(ConfigTestCase):
    def test_comments_blank_lines_spaces_and_windows_line_ends_do_not_matter(self) -> None:
        config = self.load("# a comment = 1\r\n\r\n   backlog=7\r\n\t# indented\r\nfree-space\t=  1KiB  ")
        self.assertEqual((config.backlog, config.free_space), (7, 1024))

    def test_an_empty_file_means_the_defaults(self) -> None:
        self.assertEqual(self.load("", data_dir="data"), load(None, {}))

    def test_indented_lines_are_lines_of_their_own(self) -> None:
        config = self.load("public-url =\n   backlog = 7\n")
        self.assertEqual((config.public_url, config.backlog), ("", 7))

    def test_values_are_taken_without_interpolation(self) -> None:
        self.assertEqual(
            self.load("data-dir = %(backlog)s-100%-${HOME}=x;y").data_dir,
            self.directory / "%(backlog)s-100%-${HOME}=x;y",
        )

    def test_paths_of_a_file_are_relative_to_the_file(self) -> None:
        config = self.load(
            "data-dir = store\npublic-tls-cert = /etc/cert.pem\npublic-tls-key = ../key.pem\npublic-addr ="
            " unix:public.sock\n"
        )
        self.assertEqual(config.public_addr, UnixAddress(self.directory / "public.sock"))
        self.assertEqual(config.data_dir, self.directory / "store")
        self.assertEqual(config.public_tls_cert, Path("/etc/cert.pem"))
        self.assertEqual(config.public_tls_key, self.directory / ".." / "key.pem")

    def test_the_default_data_directory_is_beside_the_file(self) -> None:
        self.assertEqual(self.load("backlog = 7").data_dir, self.directory / "data")
        self.assertEqual(load(None, {}).data_dir, Path("data"))

    def test_paths_of_flags_are_relative_to_the_current_directory(self) -> None:
        self.assertEqual(self.load("data-dir = store", data_dir="other").data_dir, Path("other"))

    def test_a_flag_beats_the_file(self) -> None:
        config = self.load("backlog = 7\npage-size = 8", backlog="9")
        self.assertEqual((config.backlog, config.page_size), (9, 8))

    def test_an_unknown_key_names_file_line_key_and_the_nearest_known_key(self) -> None:
        for name, nearest in (("public_addr", "public-addr"), ("Data-Dir", "data-dir"), ("blob-limits", "blob-limit")):
            with self.subTest(name):
                self.refused(f"\n\n{name} = 1\n", f"{self.path}, line 3: {name}: ", f"did you mean {nearest}?")

    def test_an_unknown_key_that_is_like_no_other_points_to_describe(self) -> None:
        self.refused("zzzz = 1", "line 1: zzzz", "vex describe")

    def test_an_unknown_flag_names_the_flag(self) -> None:
        self.refused("", "--back-log: ", "did you mean backlog?", back_log="7")

    def test_a_key_that_is_there_twice_is_refused(self) -> None:
        self.refused("backlog = 7\n# x\nbacklog = 7\n", f"{self.path}, line 3: backlog", "twice")

    def test_a_value_holds_no_comment(self) -> None:
        for line in ("backlog = 7 # seven", "public-tls-cert = # none", "data-dir = a\t#b"):
            with self.subTest(line):
                self.refused(f"\n{line}", f"{self.path}, line 2: {line.split()[0]}", "comment")

    def test_a_number_sign_within_a_word_is_part_of_the_value(self) -> None:
        self.assertEqual(self.load("data-dir = c#").data_dir, self.directory / "c#")

    def test_a_line_of_another_form_is_refused(self) -> None:
        for line in ("backlog", "backlog: 7", "= 7", "\x0c backlog 7"):
            with self.subTest(line):
                self.refused(f"# x\n{line}\n", f"{self.path}, line 2: ", "key = value")

    def test_a_section_is_refused(self) -> None:
        for line in ("[vex]", "[DEFAULT]", " [limits] # x", "["):
            with self.subTest(line):
                self.refused(f"backlog = 7\n{line}\nblob-limit = 1\n", f"{self.path}, line 2: ", "section")

    def test_bytes_that_are_no_plain_text_are_refused(self) -> None:
        for content, words in (
            (b"\xef\xbb\xbfbacklog = 7", ("line 1", "byte order mark")),
            ("backlog = 7".encode("utf-16"), ("line 1", "byte order mark")),
            (b"backlog = 7\ndata-dir = \xff", ("line 2", "UTF-8")),
            (b"backlog = 7\n\ndata-dir = a\0b", ("line 3", "NUL")),
        ):
            with self.subTest(content):
                self.refused(content, str(self.path), *words)

    def test_a_file_as_large_as_no_configuration_is_refused(self) -> None:
        self.refused(b"#" * (1024 * 1024 + 1), str(self.path), "too large")

    def test_other_letters_are_fine_in_comments_and_paths(self) -> None:
        self.assertEqual(self.load("# Größe\u2028 und mehr\ndata-dir = Träger").data_dir, self.directory / "Träger")

    def test_a_file_that_cannot_be_read_is_named(self) -> None:
        self.path.mkdir()
        for path in (self.path, self.directory / "missing.conf", Path(os.devnull) / "vex.conf"):
            with (
                self.subTest(path),
                self.assertRaisesRegex(Failure, re.escape(f"cannot read the configuration file {path}: ")),
            ):
                load(path, {})


class CheckTest(ConfigTestCase):
    def test_a_certificate_and_its_key_belong_together(self) -> None:
        for name in ("public", "auth", "internal"):
            with self.subTest(name):
                self.refused(f"{name}-tls-cert = a.pem", f"{name}-tls-cert is given without {name}-tls-key")
                self.refused(f"{name}-tls-key = a.pem", f"{name}-tls-key is given without {name}-tls-cert")

    def test_one_listener_must_be_on(self) -> None:
        self.refused(
            "public-addr = off\nauth-addr = off\ninternal-addr = off",
            "public-addr",
            "auth-addr",
            "internal-addr",
            "off",
        )
        self.assertIsNone(self.load("public-addr = off\ninternal-addr = off").public_addr)

    def test_two_listeners_have_two_addresses(self) -> None:
        for one, other in (
            ("localhost:80", "localhost:80"),
            (":80", "localhost:80"),
            ("[::1]:80", ":80"),
            ("unix:/a", "unix:/a"),
        ):
            with self.subTest(one=one, other=other):
                self.refused(
                    f"public-addr = {one}\ninternal-addr = {other}", f"public-addr {one}", f"internal-addr {other}"
                )

    def test_listeners_may_share_a_host_a_port_or_any_free_port(self) -> None:
        different = (
            ("localhost:80", "localhost:81"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("unix:/a", "unix:/b"),
            ("unix:/a", ":80"),
        )
        for one, other in (*different, ("localhost:0", "localhost:0"), ("off", "off")):
            with self.subTest(one=one, other=other):
                config = self.load(f"public-addr = {one}\ninternal-addr = {other}")
                self.assertEqual(
                    [str(address or "off") for address in (config.public_addr, config.internal_addr)], [one, other]
                )

    def test_redirects_of_nginx_need_a_trusted_proxy(self) -> None:
        self.refused("accel-redirect = /blobs/", "accel-redirect needs trusted-proxies")
        self.assertEqual(self.load("accel-redirect = /blobs/\ntrusted-proxies = unix").accel_redirect, "/blobs/")

    def test_a_page_is_no_larger_than_the_limit(self) -> None:
        self.refused("page-size = 11\npage-limit = 10", "page-size 11", "page-limit 10")
        self.assertEqual(self.load("page-size = 10\npage-limit = 10").page_size, 10)


class DescribeTest(ConfigTestCase):
    def test_it_loads_to_the_defaults(self) -> None:
        self.assertEqual(self.load(describe(), data_dir="data"), load(None, {}))

    def test_it_loads_to_the_defaults_with_every_key_uncommented(self) -> None:
        keys = describe().partition("\n#[")[0]
        uncommented = re.sub(r"^#(?=[a-z])", "", keys, flags=re.MULTILINE)
        self.assertNotEqual(uncommented, keys)
        self.assertEqual(self.load(uncommented, data_dir="data"), load(None, {}))

    def test_every_key_has_a_comment_and_its_default(self) -> None:
        text = describe()
        for name, default in DEFAULTS.items():
            with self.subTest(name):
                match = re.search(rf"^# .+\n(#?){name} =(.*)$", text, re.MULTILINE)
                assert match, name
                self.assertEqual(
                    bool(match[1]), default in (None, "", ()), "commented out exactly where there is no default"
                )
                self.assertEqual(bool(match[2]), not match[1])

    def test_description_marks_the_keys_that_are_read_again_with_a_signal(self) -> None:
        comments = {
            name: comment for comment, name in re.findall(r"((?:^# .*\n)+)#?([a-z-]+) =", describe(), re.MULTILINE)
        }
        marked = {
            name
            for name, comment in comments.items()
            if " ".join(comment.replace("#", "").split()).endswith("Read again with SIGHUP.")
        }
        limits = {
            "request-line-limit",
            "header-fields-limit",
            "header-bytes-limit",
            "blob-limit",
            "free-space",
            "upload-sessions",
            "failed-logins",
        }
        times = {f"{name}-timeout" for name in ("handshake", "head", "idle", "stall", "upload", "shutdown")}
        pairs = {f"{listener}-tls-{part}" for listener in ("public", "auth", "internal") for part in ("cert", "key")}
        self.assertEqual(marked, {*limits, *times, *pairs, "minimum-rate"})

    def test_its_lines_fit_a_terminal(self) -> None:
        self.assertLessEqual(max(map(len, describe().splitlines())), 105)


class DefaultPathTest(ConfigTestCase):
    def found(self) -> str:
        code = "from vex.settings.file import default_path; print(default_path())"
        environment = {**os.environ, "PYTHONPATH": str(TOP)}
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    def test_a_file_in_the_current_directory_is_found(self) -> None:
        self.path.touch()
        self.assertEqual(self.found(), "vex.conf")

    def test_no_file_is_none(self) -> None:
        self.assertEqual(self.found(), "None")

    def test_a_link_to_nowhere_is_not_passed_over(self) -> None:
        self.path.symlink_to("missing.conf")
        self.assertEqual(self.found(), "vex.conf")


if __name__ == "__main__":
    unittest.main()
