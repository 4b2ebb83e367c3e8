#!/usr/bin/env bash
# Builds both entries into a temporary folder and compares them, byte for byte, with the files that are committed.
set -euo pipefail
cd "$(dirname "$0")"
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

CHAINRULE_STATIC="$fresh/static" CHAINRULE_PAGE="$fresh/page" npm run --silent build >"$fresh/log" 2>&1 || { cat "$fresh/log"; exit 1; }

same=true
diff -rq "$fresh/static" ../src/chainrule/ui/static || same=false
cmp "$fresh/page/page.html" ../src/chainrule/explanation/page.html || same=false
if [ "$same" = false ]; then
  echo "The built files are not those of these sources. Run: npm ci && npm run build (in web/), and commit what it writes."
  exit 1
fi
echo "The built files are those of these sources."
