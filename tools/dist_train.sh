#!/usr/bin/env bash
# Train on many GPUs: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
#
# On several machines, on each: NNODES=2 MASTER_ADDR=first-machine tools/dist_train.sh ...
# NNODES=1:4 takes as many of them as there are. A run that fails is started again and
# resumes, at most MAX_RESTARTS times (3). On CPUs, GPUS is the number of processes.
set -euo pipefail
exec "$(dirname "$0")/_torchrun.sh" train.py "$@"
