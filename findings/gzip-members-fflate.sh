#!/bin/sh
# fflate 0.8.3 (npm) unpacks the first member of a gzip file and is silent about the others.
#
# Guessed: all of them, as gzip, zlib and every other library here give (RFC 1952 section 2.2: a gzip file is a series of members).
# Seen: gunzipSync returns the first alone, without an error; its streaming class gives all. Layers of several members are common
# in this field: eStargz writes one for each file, and parallel compressors write one for each block.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-fund --no-audit fflate@0.8.3 pako@3.0.3 >npm.log 2>&1 || { cat npm.log; exit 1; }
cat >try.mjs <<'JAVASCRIPT'
import zlib from 'node:zlib';
import * as fflate from 'fflate';
import * as pako from 'pako';

const two = Buffer.concat([zlib.gzipSync(Buffer.from('first '.repeat(1000))), zlib.gzipSync(Buffer.from('second '.repeat(1000)))]);
console.log('bytes in both members: 13000');
console.log('node:zlib gunzipSync:', zlib.gunzipSync(two).length);
console.log('pako ungzip:', pako.ungzip(two).length);
console.log('fflate gunzipSync:', fflate.gunzipSync(two).length);
let streamed = 0;
const gunzip = new fflate.Gunzip((piece) => { streamed += piece.length; });
gunzip.push(two, true);
console.log('fflate Gunzip:', streamed);
JAVASCRIPT
node try.mjs | tee seen
diff - seen <<'EXPECTED'
bytes in both members: 13000
node:zlib gunzipSync: 13000
pako ungzip: 13000
fflate gunzipSync: 6000
fflate Gunzip: 13000
EXPECTED
echo "as before"
