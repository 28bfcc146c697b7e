#!/bin/sh
# Brings node_modules in line with package-lock.json, and with it the Node that everything else runs on.
# Does nothing when they match already.
set -eu
cd "$(dirname "$0")/.."

stamp=node_modules/.installed-lock
if [ -f "$stamp" ] && cmp -s package-lock.json "$stamp" && [ -x node_modules/node/bin/node ]; then
  exit 0
fi

echo "Installing dependencies …"
npm ci --no-audit --no-fund --loglevel=error
# An npm that holds back install scripts leaves the Node package without its binary.
if [ ! -x node_modules/node/bin/node ]; then
  npm rebuild node --loglevel=error
fi
if [ ! -x node_modules/node/bin/node ]; then
  echo "The Node binary of the \"node\" package is missing: allow its install script, then run this again." >&2
  exit 1
fi
cp package-lock.json "$stamp"
