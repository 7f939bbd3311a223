#!/bin/sh
# unionfs-fuse 1.0 and mergerfs 2.33.5 show the names of one file with different inode numbers; as root, with /dev/fuse.
#
# Guessed: the same number and a count of two, as in the directory below and on overlay (POSIX, <sys/stat.h>: st_ino and st_dev together
# name the file). Seen: a count of two, and another number for each name, which libfuse makes up for each path unless told "use_ino". GNU tar
# knows the second name by the number: a layer packed from such a tree holds the content once for each name, and unpacks into files apart.
set -eu
work=$(mktemp -d)
cleanup() {
    cd /
    for name in unionfs mergerfs use_ino; do umount "$work/$name" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work"
apt-get download -q unionfs-fuse=1.0-1+b1 mergerfs=2.33.5-1 fuse=2.9.9-6+b1 fuse3=3.14.0-4 >apt.log 2>&1 || { cat apt.log; exit 1; }
for package in *.deb; do dpkg -x "$package" .; done
export PATH="$work/usr/bin:$work/bin:$PATH"
mkdir plain unionfs mergerfs use_ino
head -c 100000 /dev/zero >plain/first
ln plain/first plain/second
unionfs --version 2>&1 | head -n 1
tar --version | head -n 1
unionfs plain=RW unionfs
mergerfs plain mergerfs
mergerfs -o use_ino plain use_ino
for directory in plain unionfs mergerfs use_ino; do
    first=$(stat -c %i "$directory/first")
    second=$(stat -c %i "$directory/second")
    same=$([ "$first" = "$second" ] && echo "the same number" || echo "another number")
    links=$(tar -C "$directory" -cf - first second | tar -tvf - | grep -c 'link to' || true)
    echo "$directory: $(stat -c %h "$directory/second") names, $same, $links links in tar of $(tar -C "$directory" -b 1 -cf - first second | wc -c) bytes"
done | tee seen
diff - seen <<'EXPECTED'
plain: 2 names, the same number, 1 links in tar of 102400 bytes
unionfs: 2 names, another number, 0 links in tar of 202752 bytes
mergerfs: 2 names, another number, 0 links in tar of 202752 bytes
use_ino: 2 names, the same number, 1 links in tar of 102400 bytes
EXPECTED
echo "as before"
