#!/usr/bin/env bash
# Trains on a Cloud TPU slice: asks for it, installs on all its workers, trains, and when the slice is taken away
# (spot capacity) asks for another and goes on from the last checkpoint.
#
#   ZONE=us-east5-b TYPE=v6e-16 launch/tpu_pod.sh configs/a2f.py:sd_x4 /mnt/bucket/runs/sd_x4 [--config.key=value ...]
#
# Needs gcloud, signed in. WORKDIR and the prepared data (--config.data.dir) must be on a file system that all workers
# share, such as a bucket mounted with gcsfuse by STARTUP, a command that is run on them first. PACKAGE is the wheel to
# install, by default this repository's.
set -euo pipefail

usage='usage: ZONE=... TYPE=... tpu_pod.sh CONFIG WORKDIR [--config.key=value ...]'
config=${1:?$usage}
workdir=${2:?$usage}
shift 2
: "${ZONE:?$usage}" "${TYPE:?$usage}"
name=${NAME:-a2f}
runtime=${RUNTIME:-v2-alpha-tpuv6e}

tpu() { gcloud compute tpus "$@" --zone "$ZONE" --quiet; }
on_all_workers() { tpu tpu-vm ssh "$name" --worker all --command "$1"; }

if [ -z "${PACKAGE:-}" ]; then
    rm -f dist/a2f_jax-*.whl
    python3 -m pip wheel --quiet --no-deps --wheel-dir dist .
    PACKAGE=$(echo dist/a2f_jax-*.whl)
fi
# Every worker runs the same command; JAX learns from the pod who they are.
overrides=
[ $# -eq 0 ] || overrides=$(printf '%q ' "$@")

while true; do
    tpu queued-resources create "$name" --node-id "$name" --accelerator-type "$TYPE" --runtime-version "$runtime" --spot
    until tpu queued-resources describe "$name" --format 'value(state.state)' | grep -q ACTIVE; do
        sleep 30
    done

    # A slice that is taken away breaks any of these commands off; a run that fails on a slice that is still there has
    # a reason that another slice would not mend.
    done=no
    on_all_workers "${STARTUP:-true}" &&
        tpu tpu-vm scp "$PACKAGE" "$name:" --worker all &&
        on_all_workers "pip install --quiet '$(basename "$PACKAGE")[tpu]'" &&
        on_all_workers "\$HOME/.local/bin/a2f train --distributed --config $config --workdir $workdir $overrides" &&
        on_all_workers "tail -n 1 $workdir/train.log | grep -q '^Done:'" && done=yes
    state=$(tpu tpu-vm describe "$name" --format 'value(state)' || true)
    tpu queued-resources delete "$name" --force || true
    if [ "$done" = yes ]; then
        exit 0
    elif [ "$state" = READY ]; then
        echo "The run failed; its messages are above" >&2
        exit 1
    fi
    echo "The slice was taken away; asking for another (Ctrl-C stops)" >&2
done
