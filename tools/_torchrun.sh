#!/usr/bin/env bash
# What dist_train.sh and dist_test.sh share: _torchrun.sh TOOL CONFIG GPUS [options]
set -euo pipefail
if [[ ! ${3:-} =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: tools/dist_${1%.py}.sh CONFIG$([ "$1" = test.py ] && echo ' CHECKPOINT') GPUS [options of tools/$1]" >&2
    exit 2
fi
folder=$(cd "$(dirname "$0")" && pwd)
if [ "${NNODES:-1}" = 1 ]; then
    meeting=(--standalone)
else
    meeting=(
        --rdzv-backend c10d
        --rdzv-endpoint "${MASTER_ADDR:?the name of the first machine}:${MASTER_PORT:-29500}"
        --rdzv-id "${RUN_ID:-ghostdet}"
    )
fi
# Else a run that is started again may meet addresses of the first one, and wait for ever
# (https://github.com/pytorch/pytorch/issues/135712).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "${PYTHON:-python}" -m torch.distributed.run "${meeting[@]}" \
    --nnodes "${NNODES:-1}" --nproc-per-node "$3" --max-restarts "${MAX_RESTARTS:-3}" \
    "$folder/$1" "$2" --launcher pytorch "${@:4}"
