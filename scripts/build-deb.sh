#!/bin/sh
# Builds linegate_VERSION_ARCHITECTURE.deb for machines like this one, from what scripts/install.sh
# installs: same distribution release, same architecture.
#
#     scripts/build-deb.sh OUT_DIR       PYTHON as for install.sh; COMPRESSION: zstd, xz, gzip, none
set -eu

out=${1:?usage: $0 OUT_DIR}
python=${PYTHON:-/usr/bin/python3}
source=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
root=$out/root

command -v dpkg-deb >/dev/null || { echo "build-deb: no dpkg-deb here; build on Debian or Ubuntu" >&2; exit 2; }
rm -rf "$root"
sh "$source/scripts/install.sh" --root "$root"

version=$(sed -n 's/^version = //p' "$source/setup.cfg")
architecture=$(dpkg --print-architecture)
mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do
    install -m755 "$source/systemd/deb/$script" "$root/DEBIAN/$script"
done
echo /etc/linegate/agent.toml >"$root/DEBIAN/conffiles"
# The interpreter that the environment links to, by its own package: python3.11 of Debian 12.
sed -e "s/@version@/$version/" -e "s/@architecture@/$architecture/" \
    -e "s/@size_kib@/$(du -sk "$root" | cut -f1)/" \
    -e "s/@python@/$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')/" \
    "$source/systemd/deb/control.in" >"$root/DEBIAN/control"
# An umask of the builder's must not lock the agent out of its program.
chmod -R go=rX "$root"
dpkg-deb -Z"${COMPRESSION:-zstd}" --root-owner-group --build "$root" \
    "$out/linegate_${version}_$architecture.deb"
