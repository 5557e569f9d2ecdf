#!/bin/sh
# resize.sh FOLDER - an exec handler: scales an image with ImageMagick, where there is one.
#
# Payload: {"path": "import/0001.jpg", "widths": [320, 1280]}. Exit codes: 0 done, 65 never going to work
# (the job is dead at once: dead_exit), anything else is tried again later.
set -eu
folder=$1
payload=$(cat)

path=$(printf '%s' "$payload" | sed -n 's/.*"path" *: *"\([A-Za-z0-9_./-]*\)".*/\1/p')
widths=$(printf '%s' "$payload" | sed -n 's/.*"widths" *: *\[\([0-9, ]*\)\].*/\1/p' | tr ',' ' ')
case $path in
"" | /* | *..*)
  # what a payload says is never trusted: it may name a file, and only below FOLDER
  echo "no usable path in the payload" >&2
  exit 65
  ;;
esac
if [ -z "$widths" ]; then
  echo "no widths in the payload" >&2
  exit 65
fi

for width in $widths; do
  out=$folder/$path.$width
  convert "$folder/$path" -resize "${width}x" "$out.part.$$"
  mv "$out.part.$$" "$out" # a second run makes the same file again
done
