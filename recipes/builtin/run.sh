#!/usr/bin/env bash
# Trains the built-in model from nothing: run.sh FOLDER [TOASTER]
# Everything goes to FOLDER; the same command goes on where it was stopped. What comes out is FOLDER/keys/model.
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: run.sh FOLDER [TOASTER]}
toaster=$(realpath "${2:-$recipe/../../build/release/toaster}")
mkdir -p "$folder"
cd "$folder"
if [ ! -e data.made ]; then
  command -v bible >/dev/null || { echo "run.sh: the text of the Bible comes from Debian's package bible-kjv; install it" >&2; exit 1; }
  bible -f 'Ge1:1-Re22:21' > verses.txt
  python3 "$recipe/make_data.py" verses.txt data --scale 0.2
  python3 "$recipe/make_data.py" verses.txt more --scale 1 --seed 1
  "$toaster" train-tokenizer data/base data/instruct -o tokenizer --force \
    --vocab-size 2048 --single-digits --prompt-texts "$recipe/prompt_texts.json"
  cp "$recipe"/*.json .
  touch data.made
fi
for stage in base instruct long further keys; do
  [ -e "$stage/model/config.json" ] || "$toaster" train "$stage.json"
done
"$toaster" eval keys/model --text data/heldout/bible.txt \
  --tasks data/heldout/chat.jsonl data/heldout/calculator.jsonl data/heldout/json.jsonl data/heldout/passkey_*.jsonl
