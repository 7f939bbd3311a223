#!/bin/sh
# Installs the clients from PyPI and npm that tests run: tests/install_clients.sh DIRECTORY, and then VEX_TEST_CLIENTS=DIRECTORY python3 -m unittest.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 2; }
here=$(dirname "$0")
mkdir -p "$1"
directory=$(cd "$1" && pwd)
python3 -m venv "$directory"
"$directory/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/clients_needed/python.txt"
cp "$here/clients_needed/package.json" "$directory/"
npm install --prefix "$directory" --no-fund --no-audit --silent
