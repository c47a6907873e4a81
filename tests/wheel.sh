#!/usr/bin/env bash
# Builds the wheel, installs it alone into a new environment that borrows the dependencies of .venv, and uses it
# from an empty folder. Argument: a python executable of the version in .venv.
set -euo pipefail
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp -r "$root/src" "$root/pyproject.toml" "$root/README.md" "$root/LICENSE" "$work/"
rm -rf "$work"/src/*.egg-info
"$root/.venv/bin/python" -m build --wheel --no-isolation --outdir "$work/dist" "$work" > "$work/build.log" 2>&1 \
    || { cat "$work/build.log"; exit 1; }

"$python" -m venv --without-pip "$work/venv"
borrowed=$("$root/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# a path file adds the dependencies behind the new environment's own packages; editable installs in it are not followed
echo "$borrowed" > "$site/dependencies.pth"
"$root/.venv/bin/python" -m pip --python "$work/venv/bin/python" install --quiet --no-deps --no-index \
    --force-reinstall --prefix "$work/venv" "$work"/dist/*.whl

mkdir "$work/empty" && cd "$work/empty"
"$work/venv/bin/ttctune" --version
"$work/venv/bin/ttctune" fit --help > /dev/null
"$work/venv/bin/python" - "$work/venv" <<'PROGRAM'
import pathlib
import sys

import ttctune

home, file = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(ttctune.__file__).resolve()
if home not in file.parents:
    sys.exit(f"{file} was imported, not the wheel in {home}")
assert callable(ttctune.adapt) and (file.parent / "py.typed").is_file()
from ttctune.backbone.opening import open_backbone

assert open_backbone("ttctune_vit_patch8_64").digest  # its weights came with the wheel
print(f"the wheel works: {file.relative_to(home)}")
PROGRAM
