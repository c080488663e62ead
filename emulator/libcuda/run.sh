#!/bin/sh
# Runs a program on the look-alike driver: run.sh PROGRAM [ARGUMENT]...
#
# Programs look for libcuda.so.1 or libcuda.so, so a folder with the library under both names comes first on their
# path. PTX_EMULATOR_LIBCUDA names the library; by default it is the one that `cargo build` makes in this workspace.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
library=${PTX_EMULATOR_LIBCUDA:-${CARGO_TARGET_DIR:-$here/../../target}/debug/libptx_emulator_libcuda.so}
if [ ! -f "$library" ]; then
  echo "$library is not there: run cargo build -p ptx-emulator-libcuda" >&2
  exit 1
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
ln -s "$(realpath "$library")" "$folder/libcuda.so.1"
ln -s libcuda.so.1 "$folder/libcuda.so"
LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$@"
