#!/bin/sh
# deploy/static.sh PROFILE ROOTFS
#
# Builds gemway without any shared library and lays out the root of an image: the binary, the numbers of an
# unprivileged user, and nothing that could be written to. A release is laid out by what scripts/pgo has counted.
set -eu
profile=$1 rootfs=$2
target=$(rustc -vV | sed -n 's/^host: //p')
flags="-C target-feature=+crt-static"
counts=$(cd "$(dirname "$0")" && pwd)/gemway.profdata
if [ "$profile" = release ]; then
    # An older compiler cannot read the counts. Another machine's names are others, and none is found: no harm, no use.
    tried=$(mktemp -d)
    if echo 'pub fn f() {}' | rustc --crate-name tried --crate-type lib --out-dir "$tried" -C profile-use="$counts" - 2>/dev/null; then
        flags="$flags -C profile-use=$counts"
    else
        echo "this compiler cannot use $counts: built without" >&2
    fi
    rm -r "$tried"
fi
# A target of its own keeps the flags away from build scripts and macros.
RUSTFLAGS=$flags cargo build --locked --bin gemway --profile "$profile" --target "$target"
folder=$profile
[ "$profile" = dev ] && folder=debug
mkdir -p "$rootfs/etc"
cp "${CARGO_TARGET_DIR:-target}/$target/$folder/gemway" "$rootfs/gemway"
chmod 0555 "$rootfs/gemway"
printf 'gemway:x:65532:65532::/:/\n' >"$rootfs/etc/passwd"
printf 'gemway:x:65532:\n' >"$rootfs/etc/group"
