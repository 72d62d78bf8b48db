#!/bin/sh
# Makes the small machine that `make test-systemd` boots: this distribution with systemd, and what
# the package depends on. Kept for the next time; prints its folder.
#
#     scripts/test-machine.sh            in ${XDG_CACHE_HOME:-~/.cache}/linegate
set -eu

PATH=$PATH:/usr/sbin:/sbin
. /etc/os-release
folder=${XDG_CACHE_HOME:-$HOME/.cache}/linegate/machine-$VERSION_CODENAME

fail() {
    echo "test-machine: $*" >&2
    exit 1
}

if [ ! -e "$folder/.complete" ]; then
    [ "$(id -u)" = 0 ] || fail "needs root, for debootstrap"
    command -v debootstrap >/dev/null || fail "no debootstrap here; scripts/system-packages.sh systemd"
    # One cut short starts again.
    rm -rf "$folder"
    mkdir -p "$folder"
    debootstrap --variant=minbase \
        --include=systemd,systemd-sysv,dbus,python3,libgl1,libglib2.0-0 \
        "$VERSION_CODENAME" "$folder" >"$folder.log" 2>&1 || { tail -5 "$folder.log" >&2; fail "see $folder.log"; }
    rm -rf "$folder"/var/cache/apt/archives/*.deb
    touch "$folder/.complete"
fi
echo "$folder"
