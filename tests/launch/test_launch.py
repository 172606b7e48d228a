"""The launch files end in a valid `a2f train` command."""

import os
import pathlib
import re
import shlex
import signal
import subprocess
import time

import pytest
import yaml

from a2f_jax.cli.main import parser
from a2f_jax.cli.train import PREEMPTED, load_config

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


def test_the_jobset_trains_on_all_machines_of_its_slice():
    jobset = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job["parallelism"] == job["completions"]
    pod = job["template"]["spec"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    (container,) = pod["containers"]
    assert rows * columns == job["completions"] * container["resources"]["limits"]["google.com/tpu"]
    args, overrides = parser().parse_known_args(container["command"][1:])
    assert args.distributed
    assert args.workdir.startswith("gs://")
    config = load_config(args.config, overrides)
    assert config.data.dir.startswith("gs://")
    assert config.batch_size % (rows * columns) == 0


def test_the_jobset_restarts_a_run_that_was_preempted_but_not_one_that_failed():
    spec = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    failed, saved = 2, PREEMPTED
    assert failed in rule["onExitCodes"]["values"]
    assert saved not in rule["onExitCodes"]["values"]
    (reaction,) = spec["failurePolicy"]["rules"]
    assert (reaction["action"], reaction["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


@pytest.mark.parametrize("script", ["gpu_host.sh", "slurm.sbatch"])
def test_scripts_are_valid_and_end_in_the_same_command(script):
    subprocess.run(["bash", "-n", LAUNCH / script], check=True)
    text = (LAUNCH / script).read_text().replace("\\\n", " ")
    (command,) = re.findall(r"^[^#\n]*(a2f train .*?)(?: &&| \|\||$)", text, re.MULTILINE)
    # Only the option names can be checked, because the values are shell variables.
    words = [word.replace("$", "") for word in command.replace('"', "").split()[1:] if word != "$@"]
    args, rest = parser().parse_known_args(words)
    assert args.config
    assert args.workdir
    assert all(word.startswith("--config.") for word in rest)


def run_on_a_pod(folder, codes, state, requests=(), config="configs/a2f.py:sd_x4", rest=("gs://runs/sd_x4",)):
    """Runs `tpu_pod.sh` with a gcloud whose runs of `a2f train` exit with these codes, one after the other.

    `state` is that of the slice after a run, and `requests` are the states of the request before it is active.
    """
    (folder / "codes").write_text("\n".join(map(str, codes)))
    (folder / "states").write_text("\n".join(requests))
    program = folder / "gcloud"
    program.write_text(
        "#!/usr/bin/env bash\n"
        f'cd "{folder}"\n'
        'case "$*" in\n'
        '    *" create "*) echo slice >> slices ;;\n'
        "    *queued-resources\\ describe*) state=$(head -n 1 states); sed -i 1d states; echo ${state:-ACTIVE}\n"
        '        [ "$state" != GONE ] ;;\n'
        f"    *tpu-vm\\ describe*) echo {state} ;;\n"
        '    *" scp "*) echo "$*" > copied ;;\n'
        '    *"a2f train"*) echo "${@: -4:1}" > trained; code=$(head -n 1 codes); sed -i 1d codes; exit "$code" ;;\n'
        "esac\n"
    )
    program.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "ZONE": "z",
        "TYPE": "t",
        "PACKAGE": "p",
        "GRACE": "0",
        "POLL": "0",
    }
    command = ["bash", LAUNCH / "tpu_pod.sh", config, *rest]
    done = subprocess.run(command, env=env, check=False, capture_output=True, timeout=60)
    return done.returncode, len((folder / "slices").read_text().split())


@pytest.mark.parametrize(
    ("codes", "state", "code", "slices"),
    [
        ([0], "READY", 0, 1),
        ([2], "READY", 2, 1),
        ([PREEMPTED, PREEMPTED, 0], "READY", 0, 3),
        ([255, 0], "PREEMPTED", 0, 2),
        ([255, 134, 0], "READY", 0, 3),
        ([255, 255, 255, 255], "READY", 2, 4),
        ([1], "READY", 2, 1),
    ],
    ids=["done", "failed", "preempted and saved", "preempted at once", "lost", "lost again and again", "a bug"],
)
def test_a_pod_requests_another_slice_only_after_a_preemption(tmp_path, codes, state, code, slices):
    assert run_on_a_pod(tmp_path, codes, state) == (code, slices)


@pytest.mark.parametrize(("refusals", "code"), [(2, 0), (99, 1)])
def test_a_slice_that_cannot_be_deleted_is_tried_again_and_then_told(tmp_path, refusals, code):
    (tmp_path / "gcloud").write_text(
        f'#!/usr/bin/env bash\ncd "{tmp_path}"\ncase "$*" in\n'
        "    *describe*) echo ACTIVE ;;\n"
        f'    *" delete "*) echo try >> tries; [ "$(wc -l < tries)" -gt {refusals} ] ;;\n'
        "esac\n"
    )
    (tmp_path / "gcloud").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ZONE": "z", "TYPE": "t", "PACKAGE": "p"}
    command = ["bash", LAUNCH / "tpu_pod.sh", "configs/a2f.py:sd_x4", "gs://runs/sd_x4"]
    done = subprocess.run(command, env={**env, "POLL": "0"}, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert ("a2f could not be deleted and may still cost money" in done.stderr) == (code == 1)


def test_a_slice_is_deleted_when_its_user_stops_the_script(tmp_path):
    program = tmp_path / "gcloud"
    program.write_text(f'#!/usr/bin/env bash\necho "$*" >> "{tmp_path}/calls"\n')  # a request that is never granted
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ZONE": "z", "TYPE": "t", "PACKAGE": "p"}
    command = ["bash", LAUNCH / "tpu_pod.sh", "configs/a2f.py:sd_x4", "gs://runs/sd_x4"]
    with subprocess.Popen(command, env={**env, "POLL": "0.1"}, stderr=subprocess.DEVNULL) as process:
        calls, end = tmp_path / "calls", time.monotonic() + 60
        while not calls.exists() or " describe " not in calls.read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert " delete a2f " in calls.read_text().splitlines()[-1]


def script_with(tmp_path, gcloud, **options):
    """Starts `tpu_pod.sh` with a script as `gcloud`; its calls are in `calls`, one in each line."""
    program = tmp_path / "gcloud"
    program.write_text(f'#!/usr/bin/env bash\necho "$*" >> "{tmp_path}/calls"\ncd "{tmp_path}"\n{gcloud}\n')
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ZONE": "z", "TYPE": "t", "PACKAGE": "p"}
    command = ["bash", LAUNCH / "tpu_pod.sh", "configs/a2f.py:sd_x4", "gs://runs/sd_x4"]
    return subprocess.Popen(command, env={**env, "POLL": "0"}, stderr=subprocess.PIPE, text=True, **options)


def wait_for(path):
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_request_of_which_nothing_is_known_any_more_is_deleted(tmp_path):
    process = script_with(tmp_path, '[[ "$*" != *describe* ]]')
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "does not tell the state of the request a2f, see above: deleting it" in errors
    assert " delete a2f " in (tmp_path / "calls").read_text().splitlines()[-1]


def test_a_signal_during_the_request_tells_how_to_delete_it(tmp_path):
    process = script_with(tmp_path, '[[ "$*" = *create* ]] && touch creating && exec sleep 60')
    wait_for(tmp_path / "creating")
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "gcloud compute tpus queued-resources delete a2f --zone z --force" in errors
    assert " delete " not in (tmp_path / "calls").read_text()  # it may be that of another run


def test_a_signal_during_training_deletes_the_slice_at_once(tmp_path):
    process = script_with(
        tmp_path,
        'case "$*" in *describe*) echo ACTIVE ;; *"a2f train"*) touch training; exec sleep 60 ;; esac',
    )
    wait_for(tmp_path / "training")
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert " delete a2f " in (tmp_path / "calls").read_text().splitlines()[-1]


def test_a_refused_request_ends_with_2(tmp_path):
    (tmp_path / "gcloud").write_text("#!/usr/bin/env bash\nexit 1\n")
    (tmp_path / "gcloud").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ZONE": "z", "TYPE": "t", "PACKAGE": "p"}
    command = ["bash", LAUNCH / "tpu_pod.sh", "configs/a2f.py:sd_x4", "gs://runs/sd_x4"]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "was refused" in done.stderr


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, 0, False), (1, 0, False), (2, 0, False), (PREEMPTED, 50, True), (134, 0, True), (134, 10, False)],
)
def test_slurm_requeues_a_run_that_was_stopped_at_the_time_limit_or_aborted(tmp_path, code, restarts, requeued):
    for name, script in (
        ("srun", f'[ "$1" = --cpus-per-task=8 ] && exit {code}'),
        ("scontrol", f'echo "$*" > "{tmp_path}/requeued"'),
    ):
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "8"}
    env["SLURM_RESTART_COUNT"] = str(restarts)
    done = subprocess.run(["bash", LAUNCH / "slurm.sbatch", "config", "run"], env=env, check=False)
    assert done.returncode == code
    assert (tmp_path / "requeued").exists() == requeued


@pytest.mark.parametrize(
    ("requests", "code", "slices"),
    [
        (["WAITING_FOR_RESOURCES", "PROVISIONING"], 0, 1),
        (["ACCEPTED", "GONE", "ACCEPTED"], 0, 1),
        (["ACCEPTED", "FAILED"], 2, 1),
        (["SUSPENDING"], 0, 2),
        (["GONE"] * 10, 2, 1),
    ],
    ids=["granted", "one question is not answered", "refused", "taken away", "never answered"],
)
def test_a_pod_does_not_wait_for_a_slice_that_will_not_come(tmp_path, requests, code, slices):
    assert run_on_a_pod(tmp_path, [0], "READY", requests) == (code, slices)


def test_a_config_of_the_users_own_is_copied_to_the_pod(tmp_path):
    (tmp_path / "mine.py").write_text("")
    assert run_on_a_pod(tmp_path, [0], "READY", config=f"{tmp_path}/mine.py:sd_x4") == (0, 1)
    assert f"scp p {tmp_path}/mine.py a2f:" in (tmp_path / "copied").read_text()
    assert shlex.split((tmp_path / "trained").read_text())[2:5] == ["--distributed", "--config", "mine.py:sd_x4"]


def test_the_workers_of_a_pod_get_the_arguments_as_they_were_given(tmp_path):
    config = "my configs/a2f.py:sd_x4,recipe=long"
    rest = ("gs://my runs/*", "--config.data.dir=gs://my data", "--config.note=$HOME;")
    assert run_on_a_pod(tmp_path, [0], "READY", config=config, rest=rest) == (0, 1)
    command = (tmp_path / "trained").read_text()
    # As a worker's shell reads it.
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], check=True, capture_output=True, text=True)
    program, *arguments = words.stdout.splitlines()
    assert program == "venv/bin/a2f"
    args, overrides = parser().parse_known_args(arguments)
    assert args.distributed
    assert (args.config, args.workdir, *overrides) == (config, *rest)
