#!/bin/sh
# docker-parse-image 3.0.1 and @swimlane/docker-reference 2.0.1 (npm) read image names in another way than docker does.
#
# Guessed: registry, repository, tag and digest apart, for every name that docker takes (the grammar of distribution's package "reference").
# Seen: docker-parse-image calls a digest the tag (and joins it with a colon in the name it gives back), puts "library" in front of one-part
# repositories of every registry, and returns null for more than two parts; @swimlane/docker-reference refuses an IPv6 registry.
# What pulls by the name that they give back asks for something that is not there.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-fund --no-audit docker-parse-image@3.0.1 @swimlane/docker-reference@2.0.1 >npm.log 2>&1 || { cat npm.log; exit 1; }
cat >try.cjs <<'JAVASCRIPT'
const parse = require('docker-parse-image');
const reference = require('@swimlane/docker-reference');
const digest = 'sha256:' + 'a'.repeat(64);
const short = (text) => String(text).replaceAll(digest, 'DIGEST');

function swimlane(name) {
  const { domain, path, repository, tag, digest: found } = reference.parseFamiliarName(name);
  return short([domain, path ?? repository, tag ?? 'untagged', found ?? ''].join(' ')).trim();
}

for (const name of [`registry.example/team/app@${digest}`, `registry.example/team/app:1@${digest}`, 'registry.example/app:1', 'registry.example/a/b/app:1', '[::1]:5000/team/app:1']) {
  const parsed = parse(name);
  console.log(short(name));
  console.log('  docker-parse-image:', parsed && short([parsed.registry, parsed.namespace, parsed.repository, parsed.tag, '=', parsed.fullname].join(' ')));
  try {
    console.log('  @swimlane/docker-reference:', swimlane(name));
  } catch (error) {
    console.log('  @swimlane/docker-reference:', error.message);
  }
}
JAVASCRIPT
node try.cjs | tee seen
diff - seen <<'EXPECTED'
registry.example/team/app@DIGEST
  docker-parse-image: registry.example team app DIGEST = registry.example/team/app:DIGEST
  @swimlane/docker-reference: registry.example team/app untagged DIGEST
registry.example/team/app:1@DIGEST
  docker-parse-image: registry.example team app 1@DIGEST = registry.example/team/app:1@DIGEST
  @swimlane/docker-reference: registry.example team/app 1 DIGEST
registry.example/app:1
  docker-parse-image: registry.example  app 1 = registry.example/library/app:1
  @swimlane/docker-reference: registry.example app 1
registry.example/a/b/app:1
  docker-parse-image: null
  @swimlane/docker-reference: registry.example a/b/app 1
[::1]:5000/team/app:1
  docker-parse-image: [::1]:5000 team app 1 = [::1]:5000/team/app:1
  @swimlane/docker-reference: invalid reference format
EXPECTED
echo "as before"
