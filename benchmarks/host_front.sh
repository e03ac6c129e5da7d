#!/usr/bin/env bash
# The front in results/host_pfld-0.25@300w.json, which is from before pfld-0.25@300w was distilled and
# prune looked at faces. Give the annotated folders as arguments.
set -euo pipefail
data=()
for folder in "$@"; do data+=(--data "$folder"); done
lmopt optimize pfld-0.25@300w --target host "${data[@]}" --out out/host-300w \
    --passes 'fold-batchnorm,finetune{epochs=36}' \
    --passes 'fold-batchnorm,prune{amount=0.4},finetune{epochs=36}' \
    --passes 'fold-batchnorm,drop-block{count=2},prune{amount=0.6},finetune{epochs=36}' \
    --passes 'fold-batchnorm,drop-block{count=2},prune{amount=0.65},finetune{epochs=36}' \
    --passes 'fold-batchnorm,drop-block{count=3},prune{amount=0.7},finetune{epochs=36}' \
    --passes 'fold-batchnorm,quantize-int8'
