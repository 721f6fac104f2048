#!/usr/bin/env bash
# tersor and onnxruntime-web in the same headless Chromium, in turns: a 4-bit matvec (blocks of 32) on the browser's WebGPU device.
#
#   benches/peers/onnxruntime_web.sh [--turns N] [--shape ROWSxCOLUMNS] [--flags "CHROMIUM FLAGS"] [--json]
#
# Needs node, npm and chromium; the package goes to target/peers. Without --flags WebGPU runs on SwiftShader, which every Chromium has: that
# compares kernels on a processor. On a machine with a GPU pass --flags "--enable-unsafe-webgpu" or what that browser wants.
set -euo pipefail
cd "$(dirname "$0")/../.."
peers=target/peers
version=1.30.0
if ! grep -qs "\"version\": \"$version\"" "$peers/node_modules/onnxruntime-web/package.json"; then
    mkdir -p "$peers"
    npm install --prefix "$peers" --ignore-scripts --no-audit --no-fund "onnxruntime-web@$version" >&2 || {
        echo "onnxruntime-web: missing, since npm cannot install it" >&2
        exit 1
    }
fi
cargo xtask web --quick >&2
node benches/peers/onnxruntime_web/run.mjs "$@"
