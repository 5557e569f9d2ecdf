#!/bin/sh
# Compiles, links and runs the sources beside it with one compiler and one standard:
#   matrix.sh c|c++ COMPILER STD SOURCE_ROOT VERSION CFLAGS LIBS [C_COMPILER]
# C_COMPILER: for the programs of C and C++ units. Exits 1 at the first that fails.
set -eu
language=$1 compiler=$2 std=$3 root=$4 version=$5 cflags=$6 libs=$7 c_compiler=${8:-}
here=$root/tests/compile
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

flags="-std=$std -Wall -Wextra -Wpedantic -Werror -I$root $cflags"
if [ "$language" = c ]; then
  flags="$flags -Wconversion -Wc++-compat -Wshadow -Wundef -Wcast-qual -Wwrite-strings"
  case $compiler in *gcc*) flags="$flags -Wjump-misses-init" ;; esac
  as=c
else
  as=c++
fi

# build NAME EXTRA_FLAGS SOURCE...: one program of sources in this language, run without arguments
build() {
  name=$1 extra=$2
  shift 2
  sources=
  for s in "$@"; do sources="$sources $here/$s"; done
  # shellcheck disable=SC2086  # lists of words
  "$compiler" $flags $extra -x $as $sources -x none $libs -o "$out/$name"
  "$out/$name"
}

refuses() {
  # shellcheck disable=SC2086
  if "$compiler" $flags -x $as -c "$here/$1" -o "$out/refused.o" 2>"$out/refused.txt"; then
    echo "$1 compiled, and must not" >&2
    exit 1
  fi
  grep -q "$2" "$out/refused.txt" || { cat "$out/refused.txt" >&2; exit 1; }
}

for optimise in -O0 -O2; do
  build alone "$optimise" header_alone.c
  build worker "$optimise" worker_alone.c
done
build own "" own_linkage.c
build units "" unit_main.c unit_a.c
build pack_only "-O2" pack_only.c
refuses result_ignored.c unused-result
refuses too_large_payload.c OUTBOX_PAYLOAD_BYTES_MAX

# shellcheck disable=SC2086
"$compiler" $flags -x $as "$here/version.c" -x none $libs -o "$out/version"
"$out/version" "$version"

if [ "$language" = c ]; then
  build after "" after_msgpack.c
  build before "" before_msgpack.c
  exit 0
fi

build bare "-fno-exceptions -fno-rtti -O2" header_alone.c
build bare_worker "-fno-exceptions -fno-rtti -O2" worker_alone.c
# msgpack for C++ may be missing, need Boost, or be newer than the standard: then there is nothing to test
if echo '#include <msgpack.hpp>' | "$compiler" -std="$std" -x c++ -fsyntax-only - 2>/dev/null; then
  build after "" after_msgpack_hpp.cpp
  build before "" before_msgpack_hpp.cpp
else
  echo "msgpack.hpp does not compile by itself: not tested beside it"
fi
# a C unit in a C++ program
# shellcheck disable=SC2086
"$c_compiler" -std=c99 -I"$root" $cflags -c "$here/unit_a.c" -o "$out/unit_a.o"
# shellcheck disable=SC2086
"$compiler" $flags -DUNIT_A_IS_C -x c++ "$here/unit_main.c" -x none "$out/unit_a.o" $libs -o "$out/mixed"
"$out/mixed"
