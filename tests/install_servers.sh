#!/usr/bin/env bash
# Brings the real programs that the tests talk to: Mosquitto, PostgreSQL, promtool, systemd-analyze and Chromium.
# As root it installs Debian's packages; without root it unpacks them into .cache/servers.
set -euo pipefail
cd "$(dirname "$0")/.."

CACHE="$PWD/.cache"
TREE="$CACHE/servers"
BY_HAND="sudo apt-get update && sudo apt-get install --no-install-recommends mosquitto postgresql prometheus systemd chromium"
# Debian keeps the server of each version in a folder of its own, which is in nobody's PATH.
PATH="$PATH:/usr/sbin:$TREE/bin$(printf ':%s' /usr/lib/postgresql/*/bin)"

package_of() {
    case "$1" in
        promtool) echo prometheus ;;
        postgres | initdb) echo postgresql ;;
        systemd-analyze) echo systemd ;;
        *) echo "$1" ;;
    esac
}

missing() {
    local program
    for program in mosquitto promtool systemd-analyze chromium postgres initdb; do
        command -v "$program" >/dev/null || echo "$program"
    done
}

give_up() {
    echo "the tests need $(missing | paste -sd ' ') and could not install them; run: $BY_HAND" >&2
    exit 1
}

# Debian starts a server as soon as it is installed, and at every boot after it; the tests start their own.
install_as_root() {
    local policy=/usr/sbin/policy-rc.d service
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap "rm -f '$policy'" EXIT
    fi
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$@" >/dev/null || return 1
    for service in mosquitto postgresql prometheus; do
        if [[ " $* " == *" $service "* ]] && command -v systemctl >/dev/null; then
            systemctl disable --quiet "$service" >/dev/null 2>&1 || true
        fi
    done
}

# Lists and archives in the user's own folder: apt's are root's, and may be empty.
own_apt() {
    mkdir -p "$CACHE/apt/state/lists/partial" "$CACHE/apt/cache/archives/partial"
    apt-get -qq -o Dir::State="$CACHE/apt/state" -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache="$CACHE/apt/cache" "$@"
}

# A server needs libraries that may be absent too. Of Prometheus only promtool is used, which needs none.
with_dependencies() {
    local name
    for name in "$@"; do
        echo "$name"
        [ "$name" != prometheus ] || continue
        own_apt -s --no-install-recommends install "$name" | awk '/^Inst/ {print $2}' || return 1
    done | sort -u
}

# The program finds the unpacked libraries, and nothing else in the test run sees them.
write_launcher() {
    local program="$1" target
    # Chromium's own launcher looks for the rest of it where a package manager would have put it.
    target="$(find "$TREE/unpacked" \( -path "*bin/$program" -o -path '*/lib/chromium/chromium' \) \( -type f -o -type l \) |
        grep "/$program\$" | sort -r | head -n 1)"
    [ -n "$target" ] || return 1
    mkdir -p "$TREE/bin"
    {
        echo '#!/usr/bin/env bash'
        echo "libraries=\"\$(printf '%s:' '$TREE'/unpacked/{usr/,}lib/*-linux-gnu{,/systemd})\""
        echo "LD_LIBRARY_PATH=\"\$libraries\${LD_LIBRARY_PATH:-}\" exec '$target' \"\$@\""
    } >"$TREE/bin/$program"
    chmod +x "$TREE/bin/$program"
}

unpack_as_user() {
    local archive program names
    mkdir -p "$TREE/debs" "$TREE/unpacked"
    own_apt update || true
    names="$(with_dependencies "$@")" || return 1
    # shellcheck disable=SC2086  # one package name a word
    (cd "$TREE/debs" && own_apt download $names) || return 1
    for archive in "$TREE"/debs/*.deb; do dpkg-deb -x "$archive" "$TREE/unpacked" || return 1; done
    for program in $(missing); do write_launcher "$program" || return 1; done
}

wanted="$(missing)"
[ -n "$wanted" ] || exit 0
command -v apt-get >/dev/null || give_up
mapfile -t packages < <(for program in $wanted; do package_of "$program"; done | sort -u)
echo "installing for the tests: ${packages[*]}"
if [ "$(id -u)" = 0 ]; then
    install_as_root "${packages[@]}" || give_up
else
    unpack_as_user "${packages[@]}" || give_up
fi
[ -z "$(missing)" ] || give_up
