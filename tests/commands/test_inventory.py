"""`vex ls`: the command, on a running registry and on a stopped one."""

from __future__ import annotations

import json

from tests.support.server import ServerTestCase, vex


class Listing(ServerTestCase):
    def ls(self, *arguments: str) -> str:
        done = vex("ls", *arguments, "--data-dir", str(self.server.data))
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_repositories_and_tags_are_listed(self) -> None:
        digest = self.server.auth.push_image("team/app", "v1", b"layer")
        self.server.auth.push_image("team/app", "v2", b"layer")
        self.server.auth.push_image("base", "v1", b"layer")
        names = [line.split("\t")[:2] for line in self.ls().splitlines()]
        self.assertEqual(names, [["base", "1"], ["team/app", "2"]])
        self.assertIn(f"v1\t{digest}\t", self.ls("team/app"))
        first = json.loads(self.ls("team/app", "--json").splitlines()[0])
        self.assertEqual((first["tag"], first["digest"], first["bytes"]), ("v1", digest, len(b"layer{}")))

    def test_what_is_not_there_is_said(self) -> None:
        for given, told in (
            ("none", "there is no repository none; see vex ls"),
            ("none:v1", "none:v1 names a tag, and ls lists those of a repository: write none"),
            ("127.0.0.1:8200/none", "127.0.0.1:8200 is the address of a registry; give the name without it: none"),
            ("None", "None: not a repository name: "),
        ):
            with self.subTest(given):
                done = vex("ls", given, "--data-dir", str(self.server.data))
                self.assertEqual(done.returncode, 1)
                self.assertTrue(done.stderr.startswith(f"vex: {told}"), done.stderr)
