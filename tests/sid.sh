#!/bin/sh
# Runs the tests with newer Pythons and newer clients than those of this machine: in a chroot of Debian sid, which it makes with mmdebstrap.
# tests/sid.sh DIRECTORY [MODULE …]: as root. DIRECTORY keeps the chroot for the next time. Without modules, the whole suite runs under
# each Python with nothing but Python, and then the tests of clients with the clients of sid.
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
if [ ! -e "$root/usr/bin/python3.15" ]; then
    # No package starts a service, on a port perhaps.
    mmdebstrap --variant=minbase --aptopt="$stale" --include="$(echo $packages | tr ' ' ',')" \
        --essential-hook='printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d" && chmod +x "$1/usr/sbin/policy-rc.d"' sid "$root"
fi
for kind in proc sys dev; do
    mountpoint -q "$root/$kind" || mount --rbind "/$kind" "$root/$kind"
done
copy=$root/tmp/vex-$$
trap 'rm -rf "$copy"' EXIT
mkdir "$copy"
(cd "$top" && tar -c vex.py vex tests README.md LICENSE zipapp.sh .gitignore .ci) | tar -x -C "$copy"

in_sid() { echo "== $*"; chroot "$root" sh -c "cd /tmp/${copy##*/} && exec \"\$@\"" sh env PYTHONPYCACHEPREFIX="/tmp/${copy##*/}.pyc" "$@"; }

failed=0
if [ $# -gt 0 ]; then
    in_sid python3 -m unittest "$@" || failed=1
else
    for python in python3 python3.15; do
        in_sid env VEX_TEST_REQUIRE=none "$python" -m unittest || failed=1
    done
    in_sid python3 -m unittest -v tests.test_docker tests.test_podman tests.test_skopeo tests.test_containerd tests.test_container tests.test_partial_pulls tests.test_importing \
        tests.test_layers tests.test_layouts || failed=1
fi
rm -rf "$copy.pyc"
exit $failed
