#!/bin/sh
# Five readers of tar files (npm) give long names with a byte too many, without their beginning, or without their end.
#
# Guessed: the name, in all three of the ways to store one (POSIX pax, "ustar Interchange Format", prefix; "pax Header Block", path; GNU tar
# manual, "Basic Tar Format"). Seen: GNU's form with its closing NUL from @remix-run/tar-parser 0.7.1 and @obsidize/tar-browserify 6.3.2;
# ustar's without the prefix from @obsidize/tar-browserify and nanotar 0.3.0; GNU's and pax's cut to 100 bytes by @andrewbranch/untar.js 1.0.4
# and to 99 by tarparser 0.0.5, which loses the last byte of ustar's too. Layers with node_modules have such names: what looks a file up by its
# path, or compares two layers, does not find it.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-fund --no-audit @remix-run/tar-parser@0.7.1 @obsidize/tar-browserify@6.3.2 nanotar@0.3.0 @andrewbranch/untar.js@1.0.4 tarparser@0.0.5 tar-stream@3.2.2 >npm.log 2>&1 || { cat npm.log; exit 1; }
directory=$(printf 'p%.0s' $(seq 80))
file=$(printf 'n%.0s' $(seq 90))
mkdir "$directory"
echo hello >"$directory/$file"
tar --version | head -n 1
for format in ustar pax gnu; do tar --format=$format -cf $format.tar "$directory/$file"; done
cat >try.mjs <<'JAVASCRIPT'
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { parseTar as remix } from '@remix-run/tar-parser';
import { parseTar as nano } from 'nanotar';
import * as parser from 'tarparser';

const require = createRequire(import.meta.url);
const { Archive } = require('@obsidize/tar-browserify');
const { untar } = require('@andrewbranch/untar.js');
const { extract } = require('tar-stream');
const name = 'p'.repeat(80) + '/' + 'n'.repeat(90);
console.log('the name:', name.length, 'bytes');

const readers = {
  'tar-stream': (bytes) => new Promise((resolve, reject) => {
    const stream = extract();
    stream.on('entry', (header, body, next) => { resolve(header.name); body.on('end', next).resume(); }).on('error', reject);
    stream.end(Buffer.from(bytes));
  }),
  '@remix-run/tar-parser': async (bytes) => { let found; await remix(bytes, (entry) => { found = entry.name; }); return found; },
  '@obsidize/tar-browserify': async (bytes) => (await Archive.extract(bytes)).entries.at(-1).fileName,
  nanotar: (bytes) => nano(bytes).at(-1).name,
  '@andrewbranch/untar.js': (bytes) => untar(bytes.buffer).at(-1).filename,
  tarparser: async (bytes) => (await parser.parseTar(bytes)).at(-1).name,
};
for (const format of ['ustar', 'pax', 'gnu']) {
  for (const [reader, read] of Object.entries(readers)) {
    const found = await read(new Uint8Array(fs.readFileSync(`${format}.tar`)));
    const difference = found === name ? 'as it is' : found === name + '\0' ? 'with a NUL at the end' : name.startsWith(found) ? 'its beginning' : name.endsWith(found) ? 'its end' : 'another';
    console.log(`${format}: ${reader}: ${found.length} bytes, ${difference}`);
  }
}
JAVASCRIPT
node try.mjs | tee seen
diff - seen <<'EXPECTED'
the name: 171 bytes
ustar: tar-stream: 171 bytes, as it is
ustar: @remix-run/tar-parser: 171 bytes, as it is
ustar: @obsidize/tar-browserify: 90 bytes, its end
ustar: nanotar: 90 bytes, its end
ustar: @andrewbranch/untar.js: 171 bytes, as it is
ustar: tarparser: 170 bytes, another
pax: tar-stream: 171 bytes, as it is
pax: @remix-run/tar-parser: 171 bytes, as it is
pax: @obsidize/tar-browserify: 171 bytes, as it is
pax: nanotar: 171 bytes, as it is
pax: @andrewbranch/untar.js: 100 bytes, its beginning
pax: tarparser: 99 bytes, its beginning
gnu: tar-stream: 171 bytes, as it is
gnu: @remix-run/tar-parser: 172 bytes, with a NUL at the end
gnu: @obsidize/tar-browserify: 172 bytes, with a NUL at the end
gnu: nanotar: 171 bytes, as it is
gnu: @andrewbranch/untar.js: 100 bytes, its beginning
gnu: tarparser: 99 bytes, its beginning
EXPECTED
echo "as before"
