#!/usr/bin/env bash
# tersor and llama.cpp (Vulkan) on the same adapter and the same GGUF, in turns.
#
#   benches/peers/llama_cpp.sh MODEL.gguf [TURNS] [--prompt N] [--decode N] [--rounds N]
#
# Needs node and npm; the packages (llama.cpp prebuilt, 100 MB) go to target/peers. Prints a line of JSON a turn; compare lines of
# one run only. On a machine whose only Vulkan device is a software one, llama.cpp must be told to take it, which this does.
set -euo pipefail
cd "$(dirname "$0")/../.."
model=$(realpath "${1:?which model?}")
turns=${2:-3}
shift $(($# < 2 ? $# : 2))
peers=target/peers
version=3.22.1
if [ ! -d "$peers/node_modules/@node-llama-cpp/linux-x64-vulkan" ]; then
    mkdir -p "$peers"
    npm install --prefix "$peers" --ignore-scripts --no-audit --no-fund \
        "node-llama-cpp@$version" "@node-llama-cpp/linux-x64-vulkan@$version" >&2
fi
cp benches/peers/llama_cpp.mjs "$peers/"
cargo build --quiet --release -p tersor-benches --bin end_to_end
for _ in $(seq "$turns"); do
    "${CARGO_TARGET_DIR:-target}/release/end_to_end" "$model" --json "$@"
    GGML_VK_VISIBLE_DEVICES=0 node "$peers/llama_cpp.mjs" "$model" vulkan "$@"
done
