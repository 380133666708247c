#!/usr/bin/env bash
# What the tests need beside the environment: a control plane built from Go modules, the native core where there is cargo, kaiko-eva and
# others (tests/aside) in folders of their own, and things of the system. Prometheus and promtool (alerts, dashboards) are taken out of
# Debian's package into the cache of the tests' tools: no root, and no service that starts. What the node tests need, as
# tests/cluster/node.py names it, is installed as root only; nasm and cmake for the native core too.
set -euo pipefail
.venv/bin/python -m tests.cluster.tools || echo "not built (the tests on a cluster will say so): Kubernetes and its friends"
.venv/bin/python -m tests.trainer.evaluation.eva.place >/dev/null || echo "not installed (the tests against it will say so): kaiko-eva"
.venv/bin/python -m tests.aside.place >/dev/null || echo "not installed (the tests that need them will say so): packages of tests/aside"
if command -v cargo >/dev/null; then
  if ! { command -v nasm && command -v cmake; } >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends nasm cmake make >/dev/null || echo "not installed: nasm, cmake"
  fi
  make --no-print-directory native || echo "not built (its tests will say so): the native core"
fi
command -v apt-get >/dev/null || { echo "no apt-get: the tests say what they miss"; exit 0; }
missing=$(.venv/bin/python -m tests.cluster.node)
prometheus=$(.venv/bin/python -m tests.chart.prometheus)
[ -n "$missing$prometheus" ] || exit 0
[ "$(id -u)" != 0 ] || apt-get update -qq
if [ -n "$prometheus" ]; then
  echo "unpacking Prometheus for the tests into $prometheus"
  scratch=$(mktemp -d)
  chmod 755 "$scratch"
  if (cd "$scratch" && apt-get -o APT::Sandbox::User=root download -qq prometheus && dpkg-deb -x prometheus_*.deb unpacked); then
    mkdir -p "$prometheus" && mv "$scratch"/unpacked/usr/bin/prom* "$prometheus"
  else
    echo "not unpacked (the tests that need it will say so)"
  fi
  rm -rf "$scratch"
fi
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
  echo "not installed (the node tests will say so): $missing"
  exit 0
fi
echo "installing for the node tests: $missing"
# shellcheck disable=SC2086 # a list of names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
