#!/bin/sh
# Takes away what scripts/install.sh brought. Configuration and state stay: /etc/linegate,
# /var/lib/linegate and their owner, the user linegate.
#
#     sudo scripts/uninstall.sh
set -eu

fail() {
    echo "uninstall: $*" >&2
    exit 2
}

[ $# = 0 ] || fail "$1: unknown; usage: $0"
[ "$(id -u)" = 0 ] || fail "needs root: sudo $0"
if dpkg-query -W -f '${Status}' linegate 2>/dev/null | grep -q 'ok installed'; then
    fail "the linegate package is installed; apt-get remove linegate"
fi
here=$(cd "$(dirname "$0")/../systemd/deb" && pwd)
sh "$here/prerm" remove
[ "$(readlink /usr/bin/edge-agent || true)" != /opt/linegate/bin/edge-agent ] || rm /usr/bin/edge-agent
rm -rf /opt/linegate /opt/linegate.new /opt/linegate.old /usr/share/linegate /usr/share/doc/linegate
rm -f /usr/lib/systemd/system/linegate-agent.service \
    /usr/lib/sysusers.d/linegate.conf /usr/lib/tmpfiles.d/linegate.conf
sh "$here/postrm" remove
