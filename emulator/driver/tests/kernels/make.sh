#!/bin/sh
# Compiles kernels.cu twice, with and without line tables, for drivers from CUDA 11.8 on. Needs nvcc 13.0 (NVCC or PATH).
set -eu
cd "$(dirname "$0")"
for lines in "" -lineinfo; do
  out=kernels${lines:+_lines}.ptx
  "${NVCC:-nvcc}" -arch=compute_80 -O3 -std=c++17 $lines -ptx -o "$out" kernels.cu
  # The version is lowered, and files are named without the folders that they were compiled in.
  sed -i -e 's/^\.version .*/.version 7.8/' -e 's|"/[^"]*/\([^/"]*\)"|"\1"|' "$out"
done
