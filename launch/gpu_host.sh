#!/usr/bin/env bash
# Trains on all GPUs of one machine. To resume a run that was stopped, run the same command.
#
#   launch/gpu_host.sh configs/a2f.py:sd_x4 runs/sd_x4 [--config.key=value ...]
set -euo pipefail

config=${1:?usage: gpu_host.sh CONFIG WORKDIR [--config.key=value ...]}
workdir=${2:?usage: gpu_host.sh CONFIG WORKDIR [--config.key=value ...]}
shift 2

# Keeps the images in GPU memory and performs 20 updates per call from the host.
exec a2f train --config "$config" --workdir "$workdir" \
    --config.data.placement=device --config.steps_per_dispatch=20 "$@"
