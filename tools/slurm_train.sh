#!/usr/bin/env bash
# Train under Slurm: tools/slurm_train.sh PARTITION CONFIG GPUS [options of tools/train.py]
#
# GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS may be set. The job gets SIGTERM two
# minutes before its time is up, writes a checkpoint, and goes on where it is queued again.
set -euo pipefail
if [[ ! ${3:-} =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 PARTITION CONFIG GPUS [options of tools/train.py]" >&2
    exit 2
fi
per_node=${GPUS_PER_NODE:-8}
if [ "$3" -lt "$per_node" ]; then per_node=$3; fi
# shellcheck disable=SC2086
exec srun --partition "$1" --job-name "$(basename "$2" .py)" --ntasks "$3" \
    --ntasks-per-node "$per_node" --gres "gpu:$per_node" \
    --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 --signal=TERM@120 \
    ${SRUN_ARGS:-} "${PYTHON:-python}" "$(dirname "$0")/train.py" "$2" \
    --launcher slurm --resume "${@:4}"
