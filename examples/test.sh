#!/bin/sh
# sh examples/test.sh: the decoder of every language against the golden vectors. A toolchain that is
# missing is named, with how to get it; the others decide the exit code.
cd "$(dirname "$0")" || exit 2
out=$(mktemp -d) || exit 2
trap 'rm -rf "$out"' EXIT
failed=0

have() { command -v "$1" >/dev/null 2>&1; }
skip() { echo "$1: skipped, there is no $2: $3"; }
fail() { echo "$1: FAILED"; failed=1; }

python=${PYTHON:-python3}
if "$python" -c 'import numpy' 2>/dev/null; then
  "$python" python/test.py vectors || fail Python
else
  skip Python "Python with NumPy" "pip install numpy, or set PYTHON"
fi

if have node; then
  node web/test.js vectors || fail JavaScript
else
  skip JavaScript node "apt install nodejs (18 or newer)"
fi

compiler=${CXX:-g++}
if have "$compiler"; then
  { "$compiler" -std=c++17 -O1 -Wall -Wextra -Wpedantic -Werror cpp/test.cpp -o "$out/vectors" &&
    "$out/vectors" vectors; } || fail C++
else
  skip C++ "$compiler" "apt install g++, or set CXX"
fi

kotlin=${KOTLINC:-kotlinc}
have "$kotlin" || kotlin=android/node_modules/kotlin-compiler/bin/kotlinc
if ! have java; then
  skip Kotlin java "apt install openjdk-17-jre-headless"
elif [ -f "$kotlin" ] || have "$kotlin"; then
  path=$(command -v "$kotlin" || echo "$kotlin")
  { bash "$path" android/core/src -include-runtime -d "$out/vectors.jar" &&
    java -jar "$out/vectors.jar" vectors; } || fail Kotlin
else
  skip Kotlin kotlinc \
    "npm install --no-save --prefix examples/android kotlin-compiler@2.4.20, or set KOTLINC"
fi

if have swift; then
  (cd ios && swift test --scratch-path "$out/swift") || fail Swift
else
  skip Swift swift "apt install swiftlang (Debian 13), or https://www.swift.org/install"
fi
exit $failed
