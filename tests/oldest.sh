#!/usr/bin/env bash
# Runs the tests with the oldest dependencies that pyproject.toml admits, in an environment of its own; torch,
# torchvision and timm are those of constraints.txt. Argument: a python executable.
set -euo pipefail
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" - "$root/pyproject.toml" > "$work/floors.txt" <<'PROGRAM'
import re
import sys
import tomllib

project = tomllib.load(open(sys.argv[1], "rb"))["project"]
extras = project["optional-dependencies"]
for line in [*project["dependencies"], *extras["demo"], *extras["bench"]]:
    name, floor = re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups()
    if name not in ("torch", "torchvision", "timm"):
        print(f"{name}=={floor}")
PROGRAM
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet -c "$root/constraints.txt" torch torchvision timm
"$work/venv/bin/pip" install --quiet -r "$work/floors.txt" hypothesis pytest pytest-xdist
cd "$root"
PYTHONPATH="$root/src" "$work/venv/bin/python" -m pytest -n 2 -m "not slow" -p no:cacheprovider
