#!/usr/bin/env bash
# What the node tests need from the system, as tests/cluster/node.py names it. Installed only as root on Debian or Ubuntu, and said.
set -euo pipefail
missing=$(.venv/bin/python -m tests.cluster.node)
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed (the node tests will say so): $missing"
  exit 0
fi
echo "installing for the node tests: $missing"
apt-get update -qq
# shellcheck disable=SC2086 # a list of names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
