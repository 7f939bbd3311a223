#!/bin/sh
# Runs the tests with newer Pythons and newer clients than those of this machine: in a chroot of Debian sid, which it makes with mmdebstrap.
# tests/sid.sh DIRECTORY [MODULE …]: as root. DIRECTORY keeps the chroot for the next time; remove it for newer packages. Without modules, the
# whole suite runs under each Python with nothing but Python, and then the tests of clients with the clients of sid.
set -eu
[ $# -ge 1 ] || { echo "usage: $0 DIRECTORY [MODULE ...]" >&2; exit 2; }
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
root=$(cd "$1" && pwd)
shift
# What sid's archive says of its age does not matter here: it may be a copy of some days.
stale='Acquire::Check-Valid-Until "false"'
packages="ca-certificates python3 python3.15 docker.io docker-cli docker-buildx containerd podman skopeo buildah crun fuse-overlayfs nginx-light
    docker-registry zstd libarchive-tools openssl curl umoci procps"
if [ ! -e "$root/usr/bin/umoci" ]; then
    # No package starts a service, on a port perhaps.
    mmdebstrap --variant=minbase --aptopt="$stale" --include="$(echo $packages | tr ' ' ',')" \
        --essential-hook='printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d" && chmod +x "$1/usr/sbin/policy-rc.d"' sid "$root"
fi
copy=$root/tmp/vex-$$
trap 'rm -rf "$copy" "$copy.pyc"' EXIT
mkdir "$copy"
(cd "$top" && tar -c vex.py vex tests findings README.md LICENSE zipapp.sh .gitignore .ci) | tar -x -C "$copy"

# In namespaces of its own for mounts and processes: whatever a test leaves ends with them. The root is a mount, as dockerd and containerd need it
# to unpack layers; a shared one, as on a machine with systemd, or dockerd makes one of its files and leaves it.
inside='
root=$1; copy=$2; shift 2
mount --bind "$root" "$root" && mount --make-shared "$root"
for kind in sys dev; do mount --rbind "/$kind" "$root/$kind"; done
mount -t proc proc "$root/proc"
chroot "$root" sh -c "cd $copy && exec \"\$@\"" sh env PYTHONPYCACHEPREFIX="$copy.pyc" "$@" || exit 1
'
in_sid() { echo "== $*"; unshare --mount --propagation private --pid --fork --kill-child sh -ec "$inside" sh "$root" "${copy#"$root"}" "$@"; }

failed=0
if [ $# -gt 0 ]; then
    in_sid python3 -m unittest "$@" || failed=1
else
    for python in python3 python3.15; do
        in_sid env VEX_TEST_REQUIRE=none "$python" -m unittest || failed=1
    done
    in_sid python3 -m unittest -v tests.clients.test_docker tests.clients.test_podman tests.clients.test_skopeo tests.clients.test_containerd \
        tests.clients.test_partial_pulls tests.commands.test_container tests.transfer.test_importing tests.transfer.test_layouts tests.formats.test_layers || failed=1
fi
exit $failed
