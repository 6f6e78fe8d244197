#!/usr/bin/env bash
# Evaluate on many GPUs: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
set -euo pipefail
export MAX_RESTARTS=${MAX_RESTARTS:-0}
exec "$(dirname "$0")/_torchrun.sh" test.py "${1:-}" "${3:-}" "${2:-}" "${@:4}"
