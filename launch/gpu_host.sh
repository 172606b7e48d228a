#!/usr/bin/env bash
# Trains on all GPUs of one machine; JAX finds them by itself. Start it again to go on after a stop.
#
#   launch/gpu_host.sh configs/a2f.py:sd_x4 runs/sd_x4 [--config.key=value ...]
set -euo pipefail

config=${1:?usage: gpu_host.sh CONFIG WORKDIR [--config.key=value ...]}
workdir=${2:?usage: gpu_host.sh CONFIG WORKDIR [--config.key=value ...]}
shift 2

# The images lie in the GPUs' memory, and 20 updates are done without asking the host.
exec a2f train --config "$config" --workdir "$workdir" \
    --config.data.placement=device --config.steps_per_dispatch=20 "$@"
