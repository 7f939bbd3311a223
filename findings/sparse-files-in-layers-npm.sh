#!/bin/sh
# tar-stream 3.2.2 and tar 7.5.23 (npm) give sparse files another name and another size, or none at all.
#
# Guessed: the name and size of the file, as GNU tar, bsdtar, Go and Python's tarfile give (GNU tar manual, "Storing Sparse Files").
# Seen: in the PAX forms the stand-in name GNUSparseFile.0/NAME (GNU tar puts its process number for the 0) and the size of what is stored;
# in GNU tar's old form tar-stream gives the type null and the stored size, and tar leaves the file out. bsdtar writes the PAX form without
# being asked, and so do tools that build images with it: what scans such layers with these libraries looks at files that are not there.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-fund --no-audit tar-stream@3.2.2 tar@7.5.23 >npm.log 2>&1 || { cat npm.log; exit 1; }
apt-get download -q libarchive-tools=3.6.2-1+deb12u5 >apt.log 2>&1 || { cat apt.log; exit 1; }
dpkg -x libarchive-tools_*.deb .
truncate -s 30M lastlog
printf hello | dd of=lastlog bs=1 seek=20000000 conv=notrunc 2>/dev/null
usr/bin/bsdtar --version
tar --version | head -n 1
usr/bin/bsdtar -cf bsdtar.tar lastlog
tar -S --format=pax -cf pax.tar lastlog
tar -S --format=gnu -cf gnu.tar lastlog
cat >try.cjs <<'JAVASCRIPT'
const fs = require('node:fs');
const stream = require('tar-stream');
const tar = require('tar');
const plain = (name) => name.replace(/GNUSparseFile\.\d+/, 'GNUSparseFile.N');

async function main() {
  for (const file of ['bsdtar.tar', 'pax.tar', 'gnu.tar']) {
    await new Promise((resolve, reject) => {
      const extract = stream.extract();
      extract.on('entry', (header, body, next) => {
        console.log(`${file}: tar-stream: ${plain(header.name)}, ${header.type}, ${header.size} bytes`);
        body.on('end', next).resume();
      });
      extract.on('finish', resolve).on('error', reject);
      fs.createReadStream(file).pipe(extract);
    });
    let listed = 0;
    await tar.t({ file, onReadEntry: (entry) => { listed += 1; console.log(`${file}: tar: ${plain(entry.path)}, ${entry.size} bytes`); } });
    if (!listed) console.log(`${file}: tar: nothing`);
  }
}
main();
JAVASCRIPT
echo "the file: lastlog, 31457280 bytes"
node try.cjs | tee seen
diff - seen <<'EXPECTED'
bsdtar.tar: tar-stream: GNUSparseFile.N/lastlog, file, 4608 bytes
bsdtar.tar: tar: GNUSparseFile.N/lastlog, 4608 bytes
pax.tar: tar-stream: ./GNUSparseFile.N/lastlog, file, 4608 bytes
pax.tar: tar: ./GNUSparseFile.N/lastlog, 4608 bytes
gnu.tar: tar-stream: lastlog, null, 4096 bytes
gnu.tar: tar: nothing
EXPECTED
echo "as before"
