#!/usr/bin/env bash
# tersor and llama.cpp (Vulkan) on the same adapter and the same GGUF, in turns.
#
#   benches/peers/llama_cpp.sh MODEL.gguf [TURNS] [--prompt N] [--decode N] [--rounds N]
#
# Needs node and npm; the packages (llama.cpp prebuilt, 100 MB) go to target/peers. Prints a line of JSON a turn and engine; compare
# lines of one run only. On a machine whose only Vulkan device is a software one, llama.cpp must be told to take it, which this does.
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
prompt=128 decode=32 rounds=5
for ((i = 1; i < $#; i += 2)); do
    value=$((i + 1))
    case ${!i} in
    --prompt) prompt=${!value} ;;
    --decode) decode=${!value} ;;
    --rounds) rounds=${!value} ;;
    *) echo "${!i}: --prompt N, --decode N or --rounds N" >&2 && exit 2 ;;
    esac
done
cargo build --quiet --release -p tersor --no-default-features
for _ in $(seq "$turns"); do
    "${CARGO_TARGET_DIR:-target}/release/tersor" bench --model "$model" --contexts "$prompt" --tokens "$decode" --rounds "$rounds" \
        --json "$peers/tersor.json" >&2
    node -e 'const r = JSON.parse(require("fs").readFileSync(process.argv[1])), l = r.lengths[0];
        console.log(JSON.stringify({ peer: `tersor ${r.version}`, device: r.device.name, prompt: l.context, decode: r.plan.tokens,
            prefill_tokens_per_second: l.prefill_tokens_per_second, decode_tokens_per_second: l.decode_tokens_per_second }));' \
        "$peers/tersor.json"
    GGML_VK_VISIBLE_DEVICES=0 node "$peers/llama_cpp.mjs" "$model" vulkan "$@"
done
