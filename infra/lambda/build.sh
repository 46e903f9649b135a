#!/usr/bin/env bash
# Builds the function's binary, `bootstrap`, for Lambda's provided.al2023.
#
#   infra/lambda/build.sh [--arch x86_64|arm64] [-o DIR]      default: this machine's, target/lambda
#   infra/lambda/build.sh --check FILE                        only look at a binary
#
# Amazon Linux 2023 has glibc 2.34: a binary that wants more would not start there, so such a one is refused. What
# cargo makes on Debian 12 wants no more. Where it does, and for the other architecture, cargo-zigbuild (the group `zig`
# of scripts/tools.sh) links against 2.34. The other architecture also needs its standard library, which
# `rustup target add aarch64-unknown-linux-gnu` (or x86_64-…) brings: the script says so and leaves that to you.
set -euo pipefail
# shellcheck source=scripts/place.sh
. "$(dirname "$0")/../../scripts/place.sh"
cd "$ROOT"

# What Amazon Linux 2023 has.
GLIBC=2.34

# Refuses a binary that would not start in Lambda, and says how large it is.
check() {
    local file=$1 wanted machine architecture
    [ -f "$file" ] || die "no such file: $file"
    command -v readelf >/dev/null || scripts/tools.sh elf
    machine=$(LC_ALL=C readelf -h "$file" 2>/dev/null | sed -n 's/^ *Machine: *//p' || true)
    case $machine in
    *X86-64*) architecture=x86_64 ;;
    AArch64) architecture=arm64 ;;
    *) die "$file is not a program for x86_64 or arm64: ${machine:-not ELF at all}" ;;
    esac
    [ -z "${ARCH:-}" ] || [ "$ARCH" = "$architecture" ] || die "$file is for $architecture, not $ARCH"
    # The version of each symbol that it needs from glibc, the highest last.
    wanted=$(LC_ALL=C readelf --version-info --wide "$file" |
        sed -nE 's/.*Name: GLIBC_([0-9.]+) .*/\1/p' | sort -uV | tail -n 1)
    if [ -n "$wanted" ] && [ "$(printf '%s\n' "$wanted" "$GLIBC" | sort -V | tail -n 1)" != "$GLIBC" ]; then
        say "$file needs GLIBC_$wanted: Lambda's provided.al2023 has $GLIBC"
        return 1
    fi
    # Anything but glibc's own would have to come along.
    local foreign
    foreign=$(LC_ALL=C readelf --dynamic --wide "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
        grep -vE '^(ld-linux-.*|lib(c|m|dl|pthread|rt|gcc_s)\.so\.[0-9]+)$' || true)
    [ -z "$foreign" ] || die "$file needs libraries that Lambda has not: $foreign"
    say "$file: $architecture, glibc ${wanted:-none} (at most $GLIBC), $(($(stat -c %s "$file") / 1024)) KiB"
}

OUT=$ROOT/target/lambda
ARCH=
CHECK=
while [ $# -gt 0 ]; do
    case $1 in
    --arch) ARCH=$2 && shift 2 ;;
    -o) OUT=$2 && shift 2 ;;
    --check) CHECK=$2 && shift 2 ;;
    *) die "what is $1? See the head of this script" ;;
    esac
done
if [ -n "$CHECK" ]; then
    check "$CHECK"
    exit
fi

HOST=$(uname -m | sed 's/aarch64/arm64/')
ARCH=${ARCH:-$HOST}
case $ARCH in
x86_64) TARGET=x86_64-unknown-linux-gnu ;;
arm64) TARGET=aarch64-unknown-linux-gnu ;;
*) die "--arch is x86_64 or arm64, not $ARCH" ;;
esac

built=
if [ "$ARCH" = "$HOST" ]; then
    say "building bootstrap for $ARCH (some minutes)"
    cargo build --release --locked --quiet --bin pgstow
    built=$ROOT/target/release/pgstow
    check "$built" || built=
fi
if [ -z "$built" ]; then
    [ -d "$(rustc --print sysroot)/lib/rustlib/$TARGET" ] ||
        die "Rust's standard library for $TARGET is not here: rustup target add $TARGET"
    scripts/tools.sh zig
    say "building bootstrap for $ARCH, against glibc $GLIBC (some minutes)"
    # It finds zig as the module `ziglang` of the Python beside it.
    PATH=$ZIG_VENV/bin:$PATH cargo zigbuild --release --locked --quiet --bin pgstow --target "$TARGET.$GLIBC"
    built=$ROOT/target/$TARGET/release/pgstow
    check "$built" || die "the binary would not start in Lambda"
fi
# Nothing else may lie in the folder: all of it goes into the function.
rm -rf "$OUT"
mkdir -p "$OUT"
# Already stripped, by the profile in Cargo.toml.
install -m 755 "$built" "$OUT/bootstrap"
say "ready: $OUT/bootstrap"
