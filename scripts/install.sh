#!/bin/sh
# Installs the agent as a service, from this folder: program, user, unit, default configuration.
#
#     sudo scripts/install.sh            on this machine, or over an older installation
#     scripts/install.sh --root DIR      the same files below DIR, nothing else (for the package)
#
# A configuration that is there is kept. PYTHON names the interpreter (/usr/bin/python3): one of
# the distribution's, since the agent's user must be able to read it.
set -eu

python=${PYTHON:-/usr/bin/python3}
root=
opt=/opt/linegate
source=$(cd "$(dirname "$0")/.." && pwd)

fail() {
    echo "install: $*" >&2
    exit 2
}

case "${1:-}" in
    '') ;;
    --root) root=${2:?--root: say which folder} && mkdir -p "$root" && root=$(cd "$root" && pwd) ;;
    *) fail "$1: unknown; usage: $0 [--root DIR]" ;;
esac

"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null ||
    fail "PYTHON: $python is no Python from 3.10 to 3.13; say which with PYTHON=/usr/bin/python3.X"
"$python" -c 'import ensurepip' 2>/dev/null ||
    fail "PYTHON: $python cannot make environments; apt-get install python3-venv"
if [ -z "$root" ]; then
    [ "$(id -u)" = 0 ] || fail "needs root: sudo $0"
    [ -d /run/systemd/system ] || fail "systemd does not run here; see docs/line-engineer.md"
    # An interpreter in somebody's home would be out of the agent's sight.
    case $("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))') in
        /usr/*) ;;
        *) fail "PYTHON: $python is not below /usr; take the distribution's" ;;
    esac
    if dpkg-query -W -f '${Status}' linegate 2>/dev/null | grep -q 'ok installed'; then
        fail "the linegate package is installed; apt-get remove linegate first"
    fi
fi

# The program. The new environment is made beside the old one, which runs until then; paths inside
# are those of its final place.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
new=$root$opt.new
rm -rf "$new"
mkdir -p "$(dirname "$new")" "$work/source"
# A copy, because a build leaves folders behind.
tar -C "$source" -cf - --exclude __pycache__ --exclude '*.keras' setup.cfg pyproject.toml README.md \
    LICENSE edge_agent export calibration benchmarks training workshop | tar -C "$work/source" -xf -
"$python" -m venv "$new"
"$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
    --no-warn-script-location -c "$source/constraints.txt" "$work/source"
rm -f "$new"/lib/python3*/site-packages/linegate-*.dist-info/direct_url.json
grep -rIlF "$new" "$new/bin" "$new/pyvenv.cfg" | xargs sed -i "s|$new|$opt|g"
# Compiled ahead, with the final place in tracebacks: the agent may not write here.
"$new/bin/python" -m compileall -q -j 0 -s "$new" -p "$opt" "$new/lib" >/dev/null
rm -rf "$root$opt.old"
[ ! -e "$root$opt" ] || mv "$root$opt" "$root$opt.old"
mv "$new" "$root$opt"
rm -rf "$root$opt.old"

# The files around it.
put() { install -Dm644 "$source/$1" "$root$2"; }
put systemd/linegate-agent.service /usr/lib/systemd/system/linegate-agent.service
put systemd/linegate.sysusers.conf /usr/lib/sysusers.d/linegate.conf
put systemd/linegate.tmpfiles.conf /usr/lib/tmpfiles.d/linegate.conf
for file in "$source"/systemd/drop-ins/*.conf; do
    put "systemd/drop-ins/${file##*/}" "/usr/share/linegate/drop-ins/${file##*/}"
done
for file in line-engineer.md security.md; do
    put "docs/$file" "/usr/share/doc/linegate/$file"
done
put LICENSE /usr/share/doc/linegate/copyright
mkdir -p "$root/usr/bin"
ln -sf "$opt/bin/edge-agent" "$root/usr/bin/edge-agent"
[ -e "$root/etc/linegate/agent.toml" ] || put systemd/agent.toml /etc/linegate/agent.toml

# What the package does after unpacking.
[ -n "$root" ] || sh "$source/systemd/deb/postinst" configure
