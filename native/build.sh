#!/usr/bin/env bash
# Builds the native core and puts it, with the licences of what is in it, into FOLDER (of Python packages): native/build.sh FOLDER
# crates.txt is the lock file without addresses: cargo resolves, and what it resolved must have these versions and checksums.
set -euo pipefail
folder=$(realpath "$1")
cd "$(dirname "$0")"
missing=""
for tool in cargo nasm cmake make cc; do command -v "$tool" >/dev/null || missing+=" $tool"; done
[ -z "$missing" ] || { echo "native core: missing:$missing (on Debian: apt-get install nasm cmake make gcc libc6-dev; Rust 1.88 or newer)" >&2; exit 1; }

found() { awk -F'"' '/^name/ {name = $2} /^version/ {version = $2} /^checksum/ {print name, version, $2}' Cargo.lock; }
if ! { [ -f Cargo.lock ] && found | cmp -s - crates.txt; }; then
  cargo generate-lockfile --quiet
  while read -r name version _; do cargo update --quiet --precise "$version" "$name"; done < crates.txt
  found | diff - crates.txt || { echo "native core: these are not the crates of native/crates.txt" >&2; exit 1; }
fi
cargo build --quiet --release --locked --jobs 2
install -D target/release/libpatho_native.so "$folder/patho_native.abi3.so"
install -D -m 644 crates.txt "$folder/patho_native.licenses/crates.txt"
while read -r name version _; do
  for notice in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$name-$version"/{,libjpeg-turbo/}{LICENSE,COPYING,README.ijg}*; do
    [ ! -f "$notice" ] || install -D -m 644 "$notice" "$folder/patho_native.licenses/$name-$version/$(basename "$notice")"
  done
done < crates.txt
