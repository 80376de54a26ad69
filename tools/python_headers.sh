#!/bin/sh
# Print the CMake arguments that find Python's C headers; get the headers first where they are not installed.
# usage: python_headers.sh PYTHON FOLDER
# On Debian and its kin Python.h is in a package of its own (python3-dev). Without it, that package is unpacked into
# FOLDER, which needs no root; elsewhere a message says what is missing.
set -eu
python=$1 folder=$2
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -f "$include/Python.h" ] && exit 0

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ ! -f "$folder/usr/include/python$version/Python.h" ]; then
    if ! command -v apt-get >/dev/null; then
        echo "Python.h is not installed (looked in $include): install your system's python3-dev package" >&2
        exit 1
    fi
    echo "Python.h is not installed: unpacking libpython$version-dev into $folder" >&2
    rm -rf "$folder"
    mkdir -p "$folder/lists/partial" "$folder/archives/partial"
    folder=$(cd "$folder" && pwd)
    (
        cd "$folder"
        set -- -q -o "Dir::State::lists=$folder/lists" -o "Dir::Cache=$folder/archives" -o APT::Sandbox::User=
        apt-get "$@" update && apt-get "$@" download "libpython$version-dev"
    ) >&2 || {
        echo "could not get it: run 'apt-get install python3-dev' as root, and try again" >&2
        exit 1
    }
    dpkg-deb -x "$folder"/libpython"$version"-dev_*.deb "$folder"
    rm -rf "$folder/lists" "$folder/archives"
fi
folder=$(cd "$folder" && pwd)
# Debian's pyconfig.h includes another by its path below usr/include.
echo "-DPython_INCLUDE_DIR=$folder/usr/include/python$version -DCMAKE_C_FLAGS=-I$folder/usr/include"
