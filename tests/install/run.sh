#!/bin/sh
# Installs into a temporary prefix, and builds programs of others against it, outside this tree:
#   run.sh find_package|pkg_config CMAKE BUILD_DIR HERE VERSION CC CXX LIBDIR
set -eu
how=$1 cmake=$2 build=$3 here=$4 version=$5 cc=$6 cxx=$7 libdir=$8
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
prefix=$dir/moved
cp -R "$here/consumer" "$dir/consumer"

"$cmake" --install "$build" --prefix "$dir/prefix" --component development >"$dir/log" ||
  { cat "$dir/log" >&2 && exit 1; }
mv "$dir/prefix" "$prefix" # an installed tree may be moved

expect_version() {
  got=$("$1")
  [ "$got" = "$version" ] || { echo "$1 printed $got, not $version" >&2 && exit 1; }
}

case $how in
find_package)
  {
    "$cmake" -S "$dir/consumer" -B "$dir/build" -DCMAKE_PREFIX_PATH="$prefix" -DEXPECTED_VERSION="$version" \
      -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx"
    "$cmake" --build "$dir/build"
  } >"$dir/log" 2>&1 || cat "$dir/log" >&2 # what was not built is missed below
  expect_version "$dir/build/consumer_c"
  expect_version "$dir/build/consumer_cpp"
  ;;
pkg_config)
  export PKG_CONFIG_PATH="$prefix/$libdir/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
  [ "$(pkg-config --modversion pgoutbox)" = "$version" ]
  case $(pkg-config --libs pgoutbox) in
  *msgpack*) echo "pkg-config asks for msgpack's library, which is not needed" >&2 && exit 1 ;;
  esac
  # shellcheck disable=SC2046  # a list of words
  "$cc" -std=c99 -Wall -Wextra -Werror "$dir/consumer/main.c" $(pkg-config --cflags --libs pgoutbox) -o "$dir/c"
  expect_version "$dir/c"
  # shellcheck disable=SC2046
  "$cxx" -std=c++11 -Wall -Wextra -Werror "$dir/consumer/main.cpp" $(pkg-config --cflags --libs pgoutbox) -o "$dir/cpp"
  expect_version "$dir/cpp"
  ;;
program)
  "$cmake" --install "$build" --prefix "$prefix" --component program >"$dir/log" ||
    { cat "$dir/log" >&2 && exit 1; }
  "$prefix/bin/outbox" --version | grep -qF "$version"
  "$prefix/bin/outbox" check --config "$prefix/share/pgoutbox/outbox.yaml" >"$dir/log" 2>&1 ||
    { cat "$dir/log" >&2 && exit 1; }
  grep -qxF "ExecStart=$prefix/bin/outbox run" "$prefix/lib/systemd/system/outbox.service" ||
    { echo "the unit does not run the program that was installed" >&2 && exit 1; }
  ;;
esac
