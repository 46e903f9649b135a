#!/bin/sh
# A compiler for cargo (RUSTC_WRAPPER) that lets libFuzzer see into pgstow, and leaves every other crate alone: they
# build faster so, and what is found is found in pgstow. The flags are those of the stable toolchain.
case " $* " in
*" --crate-name pgstow "*)
    exec "$@" --cfg fuzzing -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$@"
