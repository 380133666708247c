#!/usr/bin/env bash
# What the node tests need from the system: a container runtime and its plugins. Installed only as root on Debian or Ubuntu, and said.
set -euo pipefail
packages=(containerd runc containernetworking-plugins iptables conntrack iproute2 busybox-static openssl)
missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed (the node tests will say so): ${missing[*]}"
  exit 0
fi
echo "installing for the node tests: ${missing[*]}"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
