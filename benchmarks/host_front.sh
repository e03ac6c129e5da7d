#!/usr/bin/env bash
# The README's front: pfld-0.25@300w on this host. Give the annotated folders as arguments.
set -euo pipefail
data=()
for folder in "$@"; do data+=(--data "$folder"); done
half='fold-batchnorm,prune{amount=0.4},finetune{epochs=12}'
third="$half,prune{amount=0.4},finetune{epochs=24}"
fifth="$third,prune{amount=0.4},finetune{epochs=24}"
lmopt optimize pfld-0.25@300w --target host "${data[@]}" --out out/host-300w \
    --passes 'fold-batchnorm,finetune{epochs=36}' \
    --passes "$half" \
    --passes "$third" \
    --passes "$fifth" \
    --passes 'fold-batchnorm,quantize-int8'
