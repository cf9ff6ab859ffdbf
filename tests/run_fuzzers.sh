#!/usr/bin/env bash
# Runs the libFuzzer programs of a build, one after the other, and fails at the first finding.
#
#   tests/run_fuzzers.sh BUILD_DIR SECONDS [NAME...]
#
# Seeds come from the files of this tree: the golden checkpoints for what reads checkpoints, and
# tests/fuzz_seeds/NAME/ where a fuzzer has some of its own. The corpus grows in
# BUILD_DIR/fuzz_corpus/NAME and is used again; findings are left in BUILD_DIR/fuzz_findings.
set -euo pipefail

if [ $# -lt 2 ]; then
  sed -n '2,4p' "$0" >&2
  exit 2
fi
build=$1 seconds=$2
shift 2
tree=$(cd "$(dirname "$0")/.." && pwd)
golden=$tree/tests/golden

# The first bytes of a safetensors file: length and header.
head_of() {
  head -c $((8 + $(od -An -t u8 -N 8 "$1"))) "$1"
}

seed() {
  local name=$1 corpus=$2 file
  case $name in
    config_fuzz)
      for file in "$golden"/*/checkpoint/config.json; do
        cp "$file" "$corpus/$(basename "$(dirname "$(dirname "$file")")").json"
      done ;;
    shard_index_fuzz)
      for file in "$golden"/*/checkpoint/*.index.json; do cp "$file" "$corpus/"; done
      echo '{"metadata": {"total_size": 4}, "weight_map": {"a": "f", "b": "g"}}' >"$corpus/small" ;;
    safetensors_fuzz)
      printf '\x70\0\0\0\0\0\0\0%-112s%s' \
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[2,1],"data_offsets":[4,6]}}' \
        '012345' >"$corpus/small"
      for file in "$golden"/*/checkpoint/*.safetensors; do
        head_of "$file" >"$corpus/$(basename "$(dirname "$(dirname "$file")")")-$(basename "$file")"
      done
      cp "$golden"/units.safetensors "$corpus/" ;;
  esac
  if [ -d "$tree/tests/fuzz_seeds/$name" ]; then cp -r "$tree/tests/fuzz_seeds/$name/." "$corpus/"; fi
}

if [ $# -eq 0 ]; then
  for program in "$build"/*_fuzz; do
    if [ -x "$program" ]; then set -- "$@" "$(basename "$program")"; fi
  done
fi
if [ $# -eq 0 ]; then
  echo "$0: no *_fuzz program in $build; build with cmake --preset fuzz" >&2
  exit 2
fi

mkdir -p "$build/fuzz_findings"
for name in "$@"; do
  corpus=$build/fuzz_corpus/$name
  mkdir -p "$corpus"
  seed "$name" "$corpus"
  log=$build/fuzz_findings/$name.log
  # An input may cost memory in proportion to its size (at most a megabyte), not more.
  if ! "$build/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
      -malloc_limit_mb=128 -print_final_stats=1 -artifact_prefix="$build/fuzz_findings/$name-" \
      "$corpus" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    echo "$name: found something; see $log" >&2
    exit 1
  fi
  echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs in $seconds s, no finding"
done
