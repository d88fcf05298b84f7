#!/bin/sh
# Prints the interpreter that will make the environment: $1 when given, else the first on PATH that is 3.11 or later
# and can make one. A name on PATH may be a stub that only prints an error (pyenv), so each candidate is run.

usable() {
    "$1" -c 'import ensurepip, ssl, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ -n "${1:-}" ]; then
    if usable "$1"; then
        echo "$1"
        exit 0
    fi
    echo "PYTHON=$1 is not a Python 3.11 or later with venv: name another, or leave PYTHON out" >&2
    exit 1
fi

for name in python3.13 python3.12 python3.11 python3 python; do
    if usable "$name"; then
        command -v "$name"
        exit 0
    fi
done

echo "No Python 3.11 or later with venv on PATH (tried python3.13, python3.12, python3.11, python3, python)." >&2
echo "Install one (Debian and Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.13)," >&2
echo "or say where it is: make PYTHON=/path/to/python3" >&2
exit 1
