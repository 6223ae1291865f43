#!/usr/bin/env bash
# Run every experiment of both papers, one after the other, and write what came out to experiments/results and
# experiments/README.md:
#   scripts/reproduce.sh [--scale here|full] [NAME ...]     names as in: slicebench list experiments
# The same command goes on where it was broken off. An experiment that this machine cannot run, or that fails, does not
# stop the others; those are named at the end, and the exit code is then 1.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v slicebench >/dev/null || PATH=$PWD/.venv/bin:$PATH

scale=()
names=()
while (($#)); do
  case $1 in
    --scale) scale=("scale=${2:?--scale takes here or full}") && shift ;;
    --scale=*) scale=("scale=${1#*=}") ;;
    -*) sed -n '2,6s/^# \?//p' "$0" >&2 && exit 2 ;;
    *) names+=("$1") ;;
  esac
  shift
done
if ((${#names[@]} == 0)); then
  mapfile -t names < <(slicebench list experiments | awk '$1 ~ /\// { print $1 }')
  ((${#names[@]})) || exit 1
fi

failed=()
for name in "${names[@]}"; do
  echo "== $name" >&2
  code=0
  slicebench run "experiment=$name" "${scale[@]}" || code=$?
  ((code != 130)) || exit 130 # interrupted: by the person, not by what is wrong with one experiment
  ((code == 0)) || failed+=("$name")
done
python -m experiments.results || failed+=("writing the results")
if ((${#failed[@]})); then
  printf 'not finished, see above: %s\n' "${failed[*]}" >&2
  exit 1
fi
