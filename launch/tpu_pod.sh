#!/usr/bin/env bash
# Trains on a Cloud TPU slice: requests it, installs the package on all workers and trains. When the slice (spot
# capacity) is preempted, requests another one and resumes from the last checkpoint.
#
#   ZONE=us-east5-b TYPE=v6e-16 launch/tpu_pod.sh configs/a2f.py:sd_x4 gs://my-runs/sd_x4 \
#       --config.data.dir=gs://my-data [--config.key=value ...]
#
# Requires gcloud with an active account. WORKDIR and the prepared data must be in buckets that the service account of
# the slice may write and read, or on a file system that all workers share. STARTUP is a command to run on every worker
# first. PACKAGE is the wheel to install; by default it is built from this repository. It is installed for the Python
# that PYTHON names (3.12), which uv downloads to workers that do not have it. CONFIG may be a file of your own.
#
# Exits with 0 when training is done, with 2 if the package could not be built or the request or the run failed, and
# with 1 if the slice could not be deleted. Ctrl-C deletes the slice; while it is being requested, it tells how to.
set -euo pipefail

usage='usage: ZONE=... TYPE=... tpu_pod.sh CONFIG WORKDIR [--config.key=value ...]'
config=${1:?$usage}
workdir=${2:?$usage}
shift 2
: "${ZONE:?$usage}" "${TYPE:?$usage}"
name=${NAME:-a2f}
runtime=${RUNTIME:-v2-alpha-tpuv6e}
poll=${POLL:-30} # seconds
files=()
file=${config%%:*}
if [ -f "$file" ]; then
    files=("$file")
    config=$(basename "$file")${config#"$file"}
fi

running=
tpu() { # in the background, because a signal is not acted on before a command in the foreground has ended
    gcloud compute tpus "$@" --zone "$ZONE" --quiet &
    running=$!
    local code=0
    wait "$running" || code=$?
    running= # its number may soon be that of another process
    return "$code"
}
on_all_workers() { tpu tpu-vm ssh "$name" --worker all --command "$1"; }

if [ -z "${PACKAGE:-}" ]; then
    built=$(mktemp -d)
    trap 'rm -rf "$built"' EXIT
    python3 -m pip wheel --quiet --no-deps --wheel-dir "$built" "$(dirname "$0")/.." || exit 2
    PACKAGE=$(echo "$built"/a2f_jax-*.whl)
fi
wheel=$(printf %q "$(basename "$PACKAGE")")
# Every worker runs the same command; JAX gets the addresses and indices of the workers from the pod. The shells of the
# workers read it once more.
arguments=$(printf '%q ' --config "$config" --workdir "$workdir" "$@")

delete() { # a slice costs money, also when nothing runs on it
    for _ in {1..10}; do
        tpu queued-resources delete "$name" --force && return
        sleep "$poll"
    done
    echo "The slice $name could not be deleted and may still cost money; see above. To delete it:" >&2
    echo "$how_to_delete" >&2
    exit 1
}
how_to_delete="gcloud compute tpus queued-resources delete $name --zone $ZONE --force"

stop() {
    trap '' INT TERM HUP # Ctrl-C twice
    kill "$running" 2>/dev/null || true
    if [ "$requested" = no ]; then # it may have been accepted, or refused because another run has this name
        echo "Stopped. Unless $name is the slice of another run, delete the request, which may cost money:" >&2
        echo "$how_to_delete" >&2
        exit 130
    fi
    echo "Stopped; deleting the slice $name" >&2
    (delete) || true
    exit 130
}

failures=0
while true; do
    requested=no
    trap stop INT TERM HUP
    if ! tpu queued-resources create "$name" --node-id "$name" --accelerator-type "$TYPE" \
        --runtime-version "$runtime" --spot; then
        echo "The request for a slice was refused; see above" >&2
        exit 2
    fi
    requested=yes state='' unanswered=0
    until [ "$state" = ACTIVE ] || [ "$state" = FAILED ] || [[ "$state" = SUSPEND* ]]; do
        if state=$(tpu queued-resources describe "$name" --format 'value(state.state)'); then
            unanswered=0
        elif [ $((unanswered += 1)) -ge 10 ]; then
            echo "gcloud does not tell the state of the request $name, see above: deleting it" >&2
            delete
            exit 2
        fi
        [ "$state" = ACTIVE ] || sleep "$poll"
    done
    if [ "$state" != ACTIVE ]; then
        tpu queued-resources describe "$name" --format 'yaml(state)' >&2 || true
        delete
        if [ "$state" = FAILED ]; then
            echo "The request for a slice failed; see its state above" >&2
            exit 2
        fi
        echo "The slice was taken away before it was used; requesting another one (press Ctrl-C to stop)" >&2
        continue
    fi

    # Preemption can interrupt any of these commands.
    code=0
    on_all_workers "${STARTUP:-true}" &&
        tpu tpu-vm scp "$PACKAGE" ${files[@]+"${files[@]}"} "$name:" --worker all &&
        on_all_workers "python3 -m pip install --quiet --user uv &&
            python3 -m uv venv --quiet --allow-existing --python '${PYTHON:-3.12}' venv &&
            python3 -m uv pip install --quiet --python venv $wheel'[tpu,gcs]'" &&
        on_all_workers "venv/bin/a2f train --distributed $arguments" || code=$?
    state=READY
    case $code in
        0 | 2) ;;              # done, or an error that another slice would not fix
        75) state=PREEMPTED ;; # the run was asked to stop, or storage failed; another try may succeed
        *)
            sleep "${GRACE:-60}" # a slice that is being preempted may be READY for a little longer
            state=$(tpu tpu-vm describe "$name" --format 'value(state)' || true)
            ;;
    esac
    delete
    if [ "$code" = 0 ]; then
        exit 0
    elif [ "$state" != READY ]; then
        failures=0
        echo "The slice was preempted; requesting another one (press Ctrl-C to stop)" >&2
    elif [ "$code" -ge 128 ] && [ $((failures += 1)) -le 3 ]; then # the connection was lost, or a process was aborted
        echo "The run ended with $code; trying again on another slice ($failures of 3; press Ctrl-C to stop)" >&2
    else
        echo "The run failed; see the messages above" >&2
        exit 2
    fi
done
