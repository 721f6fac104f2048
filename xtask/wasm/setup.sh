#!/usr/bin/env bash
# Makes a compiler for wasm32-unknown-unknown on a Debian machine where rustup cannot add the target, and prints its
# folder. Debian's package rustc-web is a current rustc that knows the target; rust-web-src is the source of exactly its
# standard library, which is compiled for wasm once per compiler version (about five CPU minutes) and then reused.
# Use: cargo … --target wasm32-unknown-unknown with RUSTC=<folder>/bin/rustc. Run by `cargo xtask test`.
set -euo pipefail
host=x86_64-unknown-linux-gnu
wasm=wasm32-unknown-unknown
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tersor

missing=()
for package in rustc-web libstd-rust-web-dev rust-web-src; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  if [[ $(id -u) != 0 ]]; then
    echo "run: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

rustc=/usr/bin/rustc # Debian's, not rustup's proxy
hash=$($rustc -vV | sed -n 's/^commit-hash: //p')
release=$($rustc -vV | sed -n 's/^release: //p')
source=$(readlink -f /usr/lib/rustlib/src/rust)
toolchain=$cache/wasm-toolchain-$release-${hash:0:9}

if [[ ! -e $toolchain/.complete ]]; then
  # rustup's toolchain lends its cargo, and its linker for wasm.
  lender=$(rustup run "${RUSTUP_TOOLCHAIN:-stable}" rustc --print sysroot)
  build=$(mktemp -d)
  trap 'rm -rf "$build"' EXIT
  # RUSTC_BOOTSTRAP lets a stable compiler build std; the remap keeps this machine's paths out of it.
  (
    cd "$source/library"
    env -u RUSTUP_TOOLCHAIN -u CARGO -u CARGO_BUILD_TARGET -u CARGO_MANIFEST_DIR \
      RUSTC_BOOTSTRAP=1 RUSTC=$rustc CARGO_TARGET_DIR="$build" __CARGO_DEFAULT_LIB_METADATA=tersor \
      RUSTFLAGS="-Zforce-unstable-if-unmarked -Cembed-bitcode=yes --remap-path-prefix=$source=/rustc/$hash" \
      "$lender/bin/cargo" build --quiet --locked --release --target $wasm --manifest-path sysroot/Cargo.toml >&2
  )
  rm -rf "$toolchain"
  mkdir -p "$toolchain/bin" "$toolchain/lib/rustlib/$host/bin" "$toolchain/lib/rustlib/$wasm/lib"
  find "$build/$wasm/release/deps" -name '*.rlib' ! -name 'libsysroot-*' \
    -exec cp {} "$toolchain/lib/rustlib/$wasm/lib/" \;
  ln -s /usr/lib/rustlib/$host/lib "$toolchain/lib/rustlib/$host/lib"
  for tool in rust-lld gcc-ld; do
    ln -s "$lender/lib/rustlib/$host/bin/$tool" "$toolchain/lib/rustlib/$host/bin/$tool"
  done
  for tool in rustc rustdoc; do
    printf '#!/bin/sh\nexec /usr/bin/%s --sysroot %q "$@"\n' "$tool" "$toolchain" >"$toolchain/bin/$tool"
    chmod +x "$toolchain/bin/$tool"
  done
  touch "$toolchain/.complete"
fi
echo "$toolchain"
