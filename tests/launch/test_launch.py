"""The launch files end in a valid `a2f train` command."""

import pathlib
import re
import subprocess

import pytest
import yaml

from a2f_jax.cli.main import parser
from a2f_jax.cli.train import load_config

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
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    shell, option, script = container["command"]
    assert (shell, option) == ("bash", "-c")
    command, _, then = script.partition(" && ")
    args, overrides = parser().parse_known_args(command.split()[1:])
    assert args.distributed
    config = load_config(args.config, overrides)
    assert config.data.dir == "/data"
    assert config.batch_size % (rows * columns) == 0
    assert then == f"tail -n 1 {args.workdir}/train.log | grep '^Done:'"


@pytest.mark.parametrize("script", ["gpu_host.sh", "slurm.sbatch", "tpu_pod.sh"])
def test_scripts_are_valid_and_end_in_the_same_command(script):
    subprocess.run(["bash", "-n", LAUNCH / script], check=True)
    text = (LAUNCH / script).read_text().replace("\\\n", " ")
    (command,) = re.findall(r"^[^#\n]*(a2f train .*?)(?: &&|$)", text, re.MULTILINE)
    # Only the option names can be checked, because the values are shell variables.
    words = [word.replace("$", "") for word in command.replace('"', "").split()[1:] if word != "$@"]
    args, rest = parser().parse_known_args(words)
    assert args.config
    assert args.workdir
    assert all(word == "overrides" or word.startswith("--config.") for word in rest)
