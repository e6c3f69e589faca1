#!/bin/sh
# deploy/static.sh PROFILE ROOTFS
#
# Builds gemway without any shared library and lays out the root of an image: the binary, the numbers of an
# unprivileged user, and nothing that could be written to. A release is laid out by what scripts/pgo has counted.
set -eu
profile=$1 rootfs=$2
target=$(rustc -vV | sed -n 's/^host: //p')
flags="-C target-feature=+crt-static"
target_dir=${CARGO_TARGET_DIR:-target}
if [ "$profile" = release ]; then
    # A compiler that cannot read the counts says so and does without; so it does with those of another machine's names.
    mkdir -p "$target_dir"
    counts=$(cd "$target_dir" && pwd)/gemway.profdata
    if xz -dc "$(dirname "$0")/gemway.profdata.xz" >"$counts"; then
        flags="$flags -C profile-use=$counts"
    else
        echo "without xz the counts cannot be read: built without" >&2
    fi
fi
# A target of its own keeps the flags away from build scripts and macros.
RUSTFLAGS=$flags cargo build --locked --bin gemway --profile "$profile" --target "$target"
folder=$profile
[ "$profile" = dev ] && folder=debug
mkdir -p "$rootfs/etc"
cp "$target_dir/$target/$folder/gemway" "$rootfs/gemway"
chmod 0555 "$rootfs/gemway"
printf 'gemway:x:65532:65532::/:/\n' >"$rootfs/etc/passwd"
printf 'gemway:x:65532:\n' >"$rootfs/etc/group"
