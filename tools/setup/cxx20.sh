#!/usr/bin/env bash
# g++ as the mmcv build needs it: C++20 (torch 2.14's headers demand it), no debug information (halves
# the time), and a precompiled header.
#
# PCH_HEADER names the header that nearly every source file includes first. The first compile job that
# comes by builds HEADER.gch from its own flags, so that the two can't differ; jobs that run meanwhile
# go without it. If that fails, the build is slower and otherwise the same.
set -u
real=${REAL_CXX:-g++}
extra=(-std=c++20 -g0)
header=${PCH_HEADER:-}

build_header() {
  local flags=()
  while (($#)); do
    case $1 in
      -o | -MF) shift ;;
      -c | -MMD | -MD | *.cpp) ;;
      *) flags+=("$1") ;;
    esac
    shift
  done
  "$real" "${flags[@]}" "${extra[@]}" -x c++-header "$header" -o "$header.tmp" &&
    mv "$header.tmp" "$header.gch"
}

if [[ -n $header && ! -e $header.gch && " $* " == *' -c '* ]] && mkdir "$header.lock" 2>/dev/null; then
  build_header "$@" || echo "cxx20.sh: no precompiled header, going on without it" >&2
fi
exec "$real" "$@" "${extra[@]}"
