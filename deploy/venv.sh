#!/bin/sh
# Make .venv with the project, editable, and what it needs at run time, pinned. Run from the repository's root.
set -eu

is_root_on_debian() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# The distribution's Python first: it is built for speed, and runs the gateway about a third faster than one that
# was built by hand without profile-guided optimisation. PYTHON=... takes another.
find_python() {
    for candidate in "${PYTHON:-}" /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && "$candidate" -c \
            'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info)' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

if ! python=$(find_python); then
    if ! is_root_on_debian; then
        echo "error: Python 3.11 or later with venv is needed (Debian, Ubuntu: sudo apt-get install python3-venv)." >&2
        exit 1
    fi
    echo "Installing Python ..." >&2
    log=$(mktemp)
    if ! { apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
            apt-get -qq install -y --no-install-recommends python3 python3-venv; } >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        echo "error: Python cannot be installed; install Python 3.11 or later with venv, then run make again." >&2
        exit 1
    fi
    rm -f "$log"
    python=$(find_python) || { echo "error: the distribution's Python is older than 3.11." >&2; exit 1; }
fi

if ! { [ -x .venv/bin/python ] && .venv/bin/python -c ''; } 2>/dev/null; then
    echo "Making .venv with $("$python" --version) ..." >&2
    "$python" -m venv --clear .venv
fi
exec .venv/bin/python -m deploy.dependencies serve
