#!/bin/sh
# deploy/static.sh PROFILE ROOTFS
#
# Builds gemway without any shared library and lays out the root of an image: the binary, the numbers of an
# unprivileged user, and nothing that could be written to.
set -eu
profile=$1 rootfs=$2
target=$(rustc -vV | sed -n 's/^host: //p')
# A target of its own keeps the flags away from build scripts and macros.
RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --bin gemway --profile "$profile" --target "$target"
folder=$profile
[ "$profile" = dev ] && folder=debug
mkdir -p "$rootfs/etc"
cp "${CARGO_TARGET_DIR:-target}/$target/$folder/gemway" "$rootfs/gemway"
chmod 0555 "$rootfs/gemway"
printf 'gemway:x:65532:65532::/:/\n' >"$rootfs/etc/passwd"
printf 'gemway:x:65532:\n' >"$rootfs/etc/group"
