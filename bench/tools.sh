#!/bin/sh
# Install nginx (a reference) and wrk (which makes load) if they are missing and this is root on Debian. nginx is not
# started as a service: the benchmark runs one of its own, on the loopback.
set -eu
PATH=$PATH:/usr/sbin
command -v nginx >/dev/null && command -v wrk >/dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "nginx or wrk is missing: scenarios that need them are left out (Debian, Ubuntu: sudo apt-get install nginx wrk)" >&2
    exit 0
fi
echo "Installing nginx and wrk"
policy=/usr/sbin/policy-rc.d
had_nginx=$(command -v nginx || true)
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
fi
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends nginx wrk >/dev/null
if [ -z "$had_nginx" ] && [ -d /run/systemd/system ]; then
    systemctl --quiet disable nginx
fi
