#!/bin/sh
# Installs from the distribution what pip cannot bring, and only what is missing.
#
#     scripts/system-packages.sh demo    a virtual environment, the libraries OpenCV loads
#     scripts/system-packages.sh test    these, a real broker, a simulated GigE Vision camera, an
#                                        RTSP server, systemd's tools and a browser
#     scripts/system-packages.sh systemd    the first, and what boots a machine in a container
#
# PYTHON names the interpreter the virtual environment will be made with (python3).
# Silent when all is there. For Debian 12, Ubuntu 22.04 and later.
set -eu

# ldconfig and mosquitto live where a user's PATH may not lead.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
python=${PYTHON:-python3}

fail() {
    echo "system-packages: $*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }
have_library() { ldconfig -p 2>/dev/null | grep -qF "$1 "; }

# Debian splits ensurepip from Python. python3-venv belongs to the Python that Debian calls
# python3 and brings more than python3.X-venv does; any other Python has only the latter.
venv_package() {
    version='import sys; print("python%d.%d" % sys.version_info[:2])'
    wanted=$("$python" -c "$version")
    if [ "$wanted" = "$(/usr/bin/python3 -c "$version" 2>/dev/null)" ]; then
        echo python3-venv
    else
        echo "$wanted-venv"
    fi
}

case "${1:-}" in
    demo | test | systemd) ;;
    *) fail "usage: $0 demo|test|systemd" ;;
esac

have "$python" || fail "no $python here; say which Python with PYTHON=..."

missing=
"$python" -c 'import ensurepip' 2>/dev/null || missing="$missing $(venv_package)"
have_library libGL.so.1 || missing="$missing libgl1"
have_library libgthread-2.0.so.0 || missing="$missing libglib2.0-0"
if [ "$1" = test ]; then
    have mosquitto || missing="$missing mosquitto"
    have mosquitto_sub || missing="$missing mosquitto-clients"
    have arv-fake-gv-camera-0.8 || missing="$missing aravis-tools"
    # The server is run by Debian's own Python, which alone has the bindings.
    rtsp='import gi; gi.require_version("GstRtspServer", "1.0")'
    /usr/bin/python3 -c "$rtsp" 2>/dev/null ||
        missing="$missing python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
    have systemd-analyze || missing="$missing systemd"
    # Builds the faulty disk of tests/support.
    have cc || missing="$missing gcc libc6-dev"
    # Ubuntu has it only as a snap, which sees no folder of ours: the page's test is skipped there.
    have chromium || ! grep -qx ID=debian /etc/os-release || missing="$missing chromium"
fi
if [ "$1" = systemd ]; then
    have systemd-nspawn || missing="$missing systemd-container"
    have debootstrap || missing="$missing debootstrap"
    have dbus-daemon || missing="$missing dbus"
    /usr/bin/python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
fi
missing=${missing# }
[ -n "$missing" ] || exit 0

have apt-get || fail "no apt-get here; install by hand: $missing"
if [ "$(id -u)" = 0 ]; then
    as_root=
elif have sudo; then
    as_root=sudo
else
    fail "needs root or sudo for: apt-get install $missing"
fi

echo "installing $missing"

# The tests start brokers of their own; one left running as a service would hold port 1883.
policy=/usr/sbin/policy-rc.d
log=$(mktemp)
cleanup() {
    rm -f "$log"
    [ -z "${policy_is_ours:-}" ] || $as_root rm -f "$policy"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
case " $missing " in
    *" mosquitto "*)
        if [ ! -e "$policy" ]; then
            policy_is_ours=yes
            printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
            $as_root chmod 755 "$policy"
        fi
        ;;
esac

# A source that cannot be refreshed need not matter for these packages: the install decides.
$as_root apt-get update -qq >"$log" 2>&1 || true
# shellcheck disable=SC2086  # a list of words is what is meant
if ! $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq -o DPkg::Lock::Timeout=120 --no-install-recommends $missing >>"$log" 2>&1; then
    cat "$log" >&2
    fail "apt-get install $missing: failed, see above"
fi

case " $missing " in
    # Not at the next boot either.
    *" mosquitto "*) $as_root systemctl disable -q mosquitto.service >/dev/null 2>&1 || true ;;
esac
