#!/bin/sh
# gocryptfs 2.3 and mergerfs 2.33.5 refuse an extended attribute for an open file whose name has gone; as root, with /dev/fuse.
#
# Guessed: the file descriptor is enough, as on ext4, XFS and overlay (fsetxattr(2)). Seen: ENOENT and ESTALE, since both look the file up by
# its name. What marks a file by its descriptor after another process has removed it sees an error that no local file system gives.
set -eu
work=$(mktemp -d)
cleanup() {
    cd /
    for name in gocryptfs mergerfs; do umount "$work/$name" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work"
apt-get download -q gocryptfs=2.3-1+b4 mergerfs=2.33.5-1 fuse=2.9.9-6+b1 fuse3=3.14.0-4 >apt.log 2>&1 || { cat apt.log; exit 1; }
for package in *.deb; do dpkg -x "$package" .; done
export PATH="$work/usr/bin:$work/bin:$PATH"
mkdir plain encrypted gocryptfs one two mergerfs
echo password >password
gocryptfs -version
mergerfs -v | head -n 1
gocryptfs -q -init -passfile password encrypted
gocryptfs -q -passfile password encrypted gocryptfs
mergerfs one:two mergerfs
cat >try.py <<'PYTHON'
import errno, os, sys

for directory in sys.argv[1:]:
    descriptor = os.open(f"{directory}/file", os.O_RDWR | os.O_CREAT)
    os.setxattr(descriptor, "user.before", b"1")
    os.unlink(f"{directory}/file")
    try:
        os.setxattr(descriptor, "user.after", b"1")
        print(f"{directory}: set")
    except OSError as error:
        print(f"{directory}: {errno.errorcode[error.errno]}")
    os.write(descriptor, b"writing goes on")
    os.close(descriptor)
PYTHON
python3 try.py plain gocryptfs mergerfs | tee seen
diff - seen <<'EXPECTED'
plain: set
gocryptfs: ENOENT
mergerfs: ESTALE
EXPECTED
echo "as before"
