#!/bin/bash
# Puts edgeface on a Raspberry Pi, or any Debian, into a folder of its own: a virtual environment,
# the wheel with one runtime, a look at what is there, and the faces of a first photo.
# Run it again after copying a newer wheel. It asks for no password and changes nothing elsewhere.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
runtime=tflite
venv=$here/venv
wheel=
wheels=
model=
photo=$here/photo.jpg
picamera2=

usage() {
  cat <<'TEXT'
usage: install.sh [options]
  --runtime NAME   tflite (default), ncnn, onnx or openvino
  --wheel FILE     the edgeface wheel; default: the newest edgeface-*.whl beside this script
  --wheels FOLDER  take all packages from this folder, without a network
  --model MODEL    for the first photo: an exported folder, or a name; default: the first exported
                   folder beside this script that is for this runtime, edgeface-n without one
  --photo FILE     default: photo.jpg beside this script, if it is there
  --venv FOLDER    default: venv beside this script
TEXT
}

fail() {
  echo "error: $*" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --runtime | --wheel | --wheels | --model | --photo | --venv)
      [ $# -ge 2 ] || fail "$1 needs a value: see install.sh --help"
      printf -v "${1#--}" '%s' "$2"
      shift 2 ;;
    *) fail "unknown option $1: see install.sh --help" ;;
  esac
done

case $runtime in
  tflite | ncnn | onnx | openvino) ;;
  *) fail "unknown runtime $runtime; accepted: tflite, ncnn, onnx, openvino" ;;
esac

# The kernel may be of 64 bits under a system of 32, so Python is asked.
bits=$(python3 -c 'import struct; print(8 * struct.calcsize("P"))') ||
  fail "there is no python3: run: sudo apt install python3 python3-venv"
if [ "$bits" = 32 ] && [ "$runtime" != ncnn ]; then
  fail "this system is of 32 bits, for which $runtime has no wheel; take --runtime ncnn, or Raspberry Pi OS (64-bit)"
fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  fail "edgeface needs Python 3.10 or newer, this is $(python3 --version): take Raspberry Pi OS 12 or newer"
python3 -c 'import ensurepip, venv' 2>/dev/null ||
  fail "Python has no venv here: run: sudo apt install python3-venv"

if [ -z "$wheel" ]; then
  wheel=$(find "$here" -maxdepth 1 -name 'edgeface-*.whl' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-)
  [ -n "$wheel" ] || fail "no edgeface-*.whl beside this script: run make package in a checkout, and copy what it makes"
fi
[ -f "$wheel" ] || fail "no wheel at $wheel"

if [ ! -x "$venv/bin/pip" ]; then # an interrupted one has Python alone
  # Picamera2 comes from apt alone, so where it is the environment sees the packages of the system.
  if python3 -c 'import picamera2' 2>/dev/null; then
    python3 -m venv --system-site-packages "$venv"
  else
    python3 -m venv "$venv"
  fi
fi

if [ -z "$model" ]; then
  found=$(find "$here" -mindepth 2 -maxdepth 2 -name manifest.json | sort)
  while IFS= read -r manifest; do
    # What has an "api" is made for the detector of another library.
    if grep -qs "\"target\": \"$runtime\"" "$manifest" && ! grep -qs '"api": ' "$manifest"; then
      model=$(dirname -- "$manifest")
      break
    fi
  done <<<"$found"
  model=${model:-edgeface-n}
  [ -z "$found" ] || echo "model: $model (another one: --model)"
fi

source=()
[ -z "$wheels" ] || source=(--no-index --find-links "$wheels")
install=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${source[@]}")
limits=()
if grep -qs 'include-system-site-packages = true' "$venv/pyvenv.cfg"; then
  picamera2=$(python3 -c 'import picamera2; print("seen")' 2>/dev/null) || true
  # Of Raspberry Pi OS 12: what is built against NumPy 1, Picamera2 among it, does not open 2.
  if python3 -c 'import numpy, sys; sys.exit(numpy.__version__[:2] != "1.")' 2>/dev/null; then
    limits=('numpy<2' 'opencv-python-headless<4.12')
  fi
fi
"${install[@]}" "${wheel}[$runtime,cli]" "${limits[@]}"
"${install[@]}" --no-deps --force-reinstall "$wheel" # a newer one may have the same version

"$venv/bin/edgeface" doctor
if [ -f "$photo" ]; then
  "$venv/bin/edgeface" detect "$photo" --model "$model"
else
  echo "note: no photo at $photo: nothing was looked at" >&2
fi

if [ -n "$picamera2" ] && ! "$venv/bin/python" -c 'import picamera2' 2>/dev/null; then
  fail "camera.py finds no Picamera2 in $venv, all else works: run: rm -r $venv, then this again; what is wrong says: $venv/bin/python -c 'import picamera2'"
fi

printf -v edgeface %q "$venv/bin/edgeface"
printf -v model %q "$model"
cat <<TEXT

Now, for example:
  $edgeface detect camera:0 --model $model --format jsonl
  $edgeface bench $model
TEXT
