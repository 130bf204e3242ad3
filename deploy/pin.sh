#!/bin/sh
# Print name==version of everything that the project and its development need, as the newest that fit today.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check '.[dev,mutants]' >&2
echo "# Made by make constraints: what the project and its development need, pinned."
"$folder/bin/python" -m pip freeze --all | grep -E '^[A-Za-z0-9._-]+==' | grep -vE '^(pip|hearth-faas)=='
