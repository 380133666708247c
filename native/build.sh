#!/usr/bin/env bash
# Builds the native core and puts it, with the licences of what is in it, into FOLDER (of Python packages): native/build.sh FOLDER
# crates.txt is the lock file without addresses: cargo resolves, and what it resolved must have these versions and checksums.
set -euo pipefail
shopt -s nocaseglob
folder=$(realpath "$1")
cd "$(dirname "$0")"
missing=""
for tool in cargo nasm cmake make cc; do command -v "$tool" >/dev/null || missing+=" $tool"; done
[ -z "$missing" ] || { echo "native core: missing:$missing (on Debian: apt-get install nasm cmake make gcc libc6-dev; Rust 1.88 or newer)" >&2; exit 1; }

found() { awk -F'"' '/^name/ {name = $2} /^version/ {version = $2} /^checksum/ {print name, version, $2}' Cargo.lock; }
pin() { # every crate of crates.txt that cargo has resolved to another version; there may be several of one name
  while read -r name version _; do
    found | grep -q "^$name $version " && continue
    for other in $(found | awk -v name="$name" '$1 == name {print $2}'); do
      grep -q "^$name $other " crates.txt || cargo update --quiet --precise "$version" "$name@$other" 2>/dev/null && break
    done
  done < crates.txt
}
if ! { [ -f Cargo.lock ] && found | cmp -s - crates.txt; }; then
  cargo generate-lockfile --quiet
  pin && pin # the second time those that the first has brought
  found | diff - crates.txt || { echo "native core: these are not the crates of native/crates.txt" >&2; exit 1; }
fi
cargo build --quiet --release --locked --jobs 2
rm -f "$folder/patho_native.abi3.so" # never written where it may be loaded
install -D target/release/libpatho_native.so "$folder/patho_native.abi3.so"
rm -rf "$folder/patho_native.licenses"
mkdir "$folder/patho_native.licenses"
# of all crates that cargo knows, those that this build is made of
cargo tree --locked --edges normal,build --prefix none --format '{p}' | awk '{print $1, substr($2, 2)}' | sort -u |
  grep -Ff - crates.txt > "$folder/patho_native.licenses/crates.txt"
while read -r name version _; do
  for notice in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$name-$version"/{,libjpeg-turbo/}{LICENSE,LICENCE,COPYING,COPYRIGHT,NOTICE,README.ijg}*{,/*}; do
    [ ! -f "$notice" ] || install -D -m 644 "$notice" "$folder/patho_native.licenses/$name-$version/$(basename "$notice")"
  done
done < "$folder/patho_native.licenses/crates.txt"
