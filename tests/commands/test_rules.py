"""`vex rules`: on a registry that runs, and on one that does not."""

from __future__ import annotations

import json
import subprocess
import time
import unittest

from tests.support.server import Server, configured, running, vex

SECTIONS = "[repositories team/*]\nexpire = dev-*\nkeep-newest = 1\n[repositories none]\nexpire = *\n"


class Commands(unittest.TestCase):
    def rules(self, server: Server, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = vex("rules", *arguments, cwd=server.directory)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def test_a_plan_is_shown_explained_and_applied_and_what_is_left_out_is_named(self) -> None:
        with running(prepare=configured(SECTIONS)) as server:
            digests = {
                tag: server.auth.push_image("team/app", tag, tag.encode() * 100) for tag in ("dev-1", "dev-2", "dev-3")
            }
            made = self.rules(server, "plan", "--json")
            self.assertIn("[repositories none], line 4", made.stderr)
            document = json.loads(made.stdout)
            pushed = [tag.pop("pushed") for tag in document["tags"]]
            self.assertTrue(all(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ") for text in pushed), pushed)
            rule = "[repositories team/*] keep-newest"
            self.assertEqual(
                document,
                {
                    "plan": 1,
                    "tags": [
                        {
                            "repository": "team/app",
                            "tag": tag,
                            "digest": digests[tag],
                            "rule": rule,
                            "pulled": None,
                            "bytes": 500,
                        }
                        for tag in ("dev-2", "dev-1")
                    ],
                    "bytes": 1000,
                },
            )
            self.assertEqual(
                self.rules(server, "plan", "team/app").stdout.splitlines()[0], f"team/app:dev-2\t{rule}\t0h\tnever\t500"
            )
            for tag, said in (("dev-1", f"goes by {rule}"), ("dev-3", f"stays by {rule}")):
                self.assertIn(f"team/app:{tag} {said}\n", self.rules(server, "explain", f"team/app:{tag}").stdout)
            explained = json.loads(self.rules(server, "explain", "team/app:dev-2", "--json").stdout)
            self.assertEqual((explained["goes"], explained["rule"], explained["place"]), (True, rule, 2))

            server.auth.push_image("team/app", "dev-2", b"other")
            applied = self.rules(server, "apply", "1", code=1)
            self.assertEqual(applied.stderr, "vex: team/app:dev-2 stays: it has moved\nremoved 1 tag, and left out 1\n")
            self.assertEqual(server.public.get("/v2/team/app/tags/list").json["tags"], ["dev-2", "dev-3"])
            self.assertEqual(self.rules(server, "apply", "1").stderr, "nothing was left to do\n")

            server.stop()
            number = json.loads(self.rules(server, "plan", "--json").stdout)["plan"]
            self.assertIn("removed 1 tag\n", self.rules(server, "apply", str(number)).stderr)
            self.assertIn("no tag goes now", self.rules(server, "plan").stderr)
            log = vex("log", "team/app", cwd=server.directory).stdout
            self.assertEqual(log.count(f"rule {rule}"), 2, log)

    def test_a_plan_of_other_sections_and_what_is_no_plan_is_refused(self) -> None:
        with running(prepare=configured(SECTIONS)) as server:
            server.auth.push_image("team/app", "dev-1", b"1")
            self.rules(server, "plan")
            server.stop()
            (server.directory / "vex.conf").write_text(SECTIONS + "keep-newest = 2\n")
            self.assertIn("have changed since plan 1", self.rules(server, "apply", "1", code=1).stderr)
            self.assertIn("there is no plan 7", self.rules(server, "apply", "7", code=1).stderr)
            self.assertIn("not the number of a plan", self.rules(server, "apply", "x", code=2).stderr)
            self.assertIn("there is no repository other", self.rules(server, "plan", "other", code=1).stderr)
