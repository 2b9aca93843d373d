"""The launch scripts: choices, errors, environment variables and signals, without installing."""

import os
import pathlib
import signal
import stat
import subprocess
import sys
import time
import tomllib

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "launch"
SCRIPTS = [*sorted(LAUNCH.glob("*.sh")), ROOT / ".ci" / "run"]
COMMAND = 'python -m cmtl_jax.main "$@"'

# A stand-in for Python that knows its version, and ensurepip when it should.
FAKE_PYTHON = """#!/bin/bash
if [[ $1 == -c && $2 == *version_info* ]]; then exit {too_old}; fi
if [[ $1 == -c && $2 == *ensurepip* ]]; then exit {no_venv}; fi
exit 99
"""

# A stand-in for `python -m cmtl_jax.main`: records what it was given, then does as told.
FAKE_MAIN = """#!/bin/bash
if [[ $1 == -V ]]; then echo "Python 3.12.0"; exit 0; fi
[[ $1 == -m && $2 == cmtl_jax.main ]] || exit 98
shift 2
out=$FAKE_OUT/$CMTL_PROCESS_ID
trap 'echo TERM >>"$out.signals"; [[ $FAKE_STUBBORN == "$CMTL_PROCESS_ID" ]] || exit 0' TERM
trap 'echo INT >>"$out.signals"; exit 0' INT
{
  echo "$PWD"
  echo "$CMTL_COORDINATOR $CMTL_NUM_PROCESSES $CMTL_PROCESS_ID"
  echo "${JAX_LOCAL_DEVICE_IDS:-all}"
  printf '[%s]' "$@"
} >"$out.tmp"
mv "$out.tmp" "$out"
if [[ $FAKE_FAILING == "$CMTL_PROCESS_ID" ]]; then exit 3; fi
if [[ $FAKE_WAITS ]]; then for ((i = 0; i < 300; i++)); do sleep 0.1; done; fi
exit 0
"""


def executable(path: pathlib.Path, text: str) -> pathlib.Path:
    """Writes an executable script, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def run(command: list, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """Runs a command that may fail and returns what it printed."""
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def clean_environment(path: str, **extra: str) -> dict[str, str]:
    """The smallest environment a script can meet, with `path` in front of the system's PATH."""
    return {"PATH": f"{path}:/usr/bin:/bin", **extra}


def functions(
    command: str, *, path: str = "/nonexistent", **extra: str
) -> subprocess.CompletedProcess:
    """Runs `command` in bash with the functions of environment.sh."""
    return run(
        ["bash", "-c", f'set -euo pipefail; source "{LAUNCH}/environment.sh"; {command}'],
        clean_environment(path, **extra),
    )


@pytest.fixture
def ready(tmp_path: pathlib.Path) -> dict[str, str]:
    """Environment variables under which a launch script finds its environment installed."""
    venv, out = tmp_path / "venv", tmp_path / "out"
    out.mkdir()
    executable(venv / "bin" / "python", FAKE_MAIN)
    stamped = functions(
        f'cmtl_stamp "{venv}" requirements-cpu.txt requirements.txt requirements-test.txt'
    )
    assert stamped.returncode == 0, stamped.stderr
    return clean_environment(
        "/nonexistent", CMTL_VENV=str(venv), CMTL_PLATFORM="cpu", FAKE_OUT=str(out),
        FAKE_FAILING="", FAKE_STUBBORN="", FAKE_WAITS="",
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_valid_bash_and_executable(script: pathlib.Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("name", ["local.sh", "processes.sh", "openmpi.sh", "slurm.sh"])
def test_script_runs_the_one_command(name: str) -> None:
    lines = [line for line in (LAUNCH / name).read_text().splitlines() if "python -m" in line]
    assert len(lines) == 1
    assert COMMAND in lines[0]


@pytest.mark.parametrize(
    ("nvidia_smi", "extra", "platform"),
    [
        ("exit 0", {}, "cuda"),
        ("exit 9", {}, "cpu"),
        (None, {}, "cpu"),
        ("exit 0", {"CMTL_PLATFORM": "cpu"}, "cpu"),
        (None, {"CMTL_PLATFORM": "cuda"}, "cuda"),
    ],
)
def test_platform_follows_the_driver_unless_told(
    tmp_path: pathlib.Path, nvidia_smi: str | None, extra: dict[str, str], platform: str
) -> None:
    # The machine of the test may have a driver itself: its PATH is left out.
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(pathlib.Path("/usr/bin") / tool)
    if nvidia_smi is not None:
        executable(tmp_path / "nvidia-smi", f"#!/bin/bash\n{nvidia_smi}\n")
    result = run(
        ["/bin/bash", "-c", f'source "{LAUNCH}/environment.sh"; cmtl_platform'],
        {"PATH": str(tmp_path), **extra},
    )
    assert (result.returncode, result.stdout.strip()) == (0, platform), result.stderr


def test_unknown_platform_is_one_line() -> None:
    result = functions("cmtl_environment", CMTL_PLATFORM="tpu")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "CMTL_PLATFORM" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ("cpu", ["requirements-cpu.txt"]),
        ("cuda", ["requirements.txt"]),
        ("cpu test", ["requirements-cpu.txt", "requirements-test.txt"]),
    ],
)
def test_requirements_follow_the_platform(arguments: str, files: list[str]) -> None:
    assert functions(f"cmtl_requirements {arguments}").stdout.split() == files
    assert all((ROOT / file).is_file() for file in files)


def test_python_finder_takes_the_first_that_fits(tmp_path: pathlib.Path) -> None:
    executable(tmp_path / "python3.13", FAKE_PYTHON.format(too_old=0, no_venv=1))
    executable(tmp_path / "python3.12", FAKE_PYTHON.format(too_old=0, no_venv=0))
    assert functions("cmtl_python", path=str(tmp_path)).stdout.strip() == "python3.12"


@pytest.mark.parametrize(
    ("too_old", "no_venv", "message"), [(1, 0, "older than 3.11"), (0, 1, "python3-venv")]
)
def test_python_finder_refuses_with_one_line(
    tmp_path: pathlib.Path, too_old: int, no_venv: int, message: str
) -> None:
    python = executable(
        tmp_path / "bin" / "python", FAKE_PYTHON.format(too_old=too_old, no_venv=no_venv)
    )
    environment = clean_environment(
        "/nonexistent", PYTHON=str(python), CMTL_VENV=str(tmp_path / "venv"), CMTL_PLATFORM="cpu"
    )
    result = run(["bash", LAUNCH / "local.sh"], environment)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    assert message in result.stderr and str(python) in result.stderr


def test_folder_that_is_no_environment_is_left_alone(tmp_path: pathlib.Path) -> None:
    precious = executable(tmp_path / "bin" / "tool", "#!/bin/bash\n")
    result = functions("cmtl_environment", CMTL_VENV=str(tmp_path), CMTL_PLATFORM="cpu")
    assert result.returncode == 1
    assert "not a Python environment" in result.stderr
    assert precious.exists()


def test_stamp_goes_stale_with_the_requirements(tmp_path: pathlib.Path) -> None:
    root, venv = tmp_path / "root", tmp_path / "venv"
    (root / "launch").mkdir(parents=True)
    for file in ("launch/environment.sh", "requirements-cpu.txt", "requirements.txt"):
        (root / file).write_bytes((ROOT / file).read_bytes())
    executable(venv / "bin" / "python", FAKE_MAIN)

    def ready(file: str) -> bool:
        command = f'source "{root}/launch/environment.sh"; cmtl_ready "{venv}" {file}'
        return run(["bash", "-c", command]).returncode == 0

    assert not ready("requirements-cpu.txt")
    functions(f'cmtl_stamp "{venv}" requirements-cpu.txt')
    assert ready("requirements-cpu.txt") and not ready("requirements.txt")
    (venv / ".cmtl-requirements-cpu.txt").unlink()
    functions(f'cmtl_stamp "{venv}" requirements.txt')
    assert ready("requirements.txt")
    assert ready("requirements-cpu.txt"), "CUDA's requirements include the CPU's"
    with open(root / "requirements-cpu.txt", "a") as file:
        file.write("another\n")
    assert not ready("requirements.txt") and not ready("requirements-cpu.txt")


def test_local_runs_from_the_root_with_its_arguments(
    tmp_path: pathlib.Path, ready: dict[str, str]
) -> None:
    arguments = ["--config=configs/synthetic.py", "--note=two words"]
    subprocess.run(
        ["bash", LAUNCH / "local.sh", *arguments], cwd=tmp_path, check=True, timeout=30,
        env=ready | {"CMTL_PROCESS_ID": "local"},
    )
    lines = (tmp_path / "out" / "local").read_text().splitlines()
    assert lines[0] == str(ROOT)
    assert lines[3] == "".join(f"[{argument}]" for argument in arguments)


# Where the tests themselves run in the background, a shell would ignore SIGINT from birth.
_LISTENING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def start_processes(
    count: int, environment: dict[str, str], out: pathlib.Path
) -> subprocess.Popen[str]:
    """Starts processes.sh and returns once every process has begun."""
    launcher = subprocess.Popen(
        [
            sys.executable, "-c", _LISTENING,
            "bash", LAUNCH / "processes.sh", str(count), "--config=x", "a b",
        ],
        env=environment, text=True, stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 20
    while any(not (out / str(i)).exists() for i in range(count)):
        assert time.monotonic() < deadline, "processes.sh did not start its processes"
        time.sleep(0.05)
    return launcher


def test_processes_get_their_place(tmp_path: pathlib.Path, ready: dict[str, str]) -> None:
    launcher = start_processes(3, ready, tmp_path / "out")
    assert launcher.wait(20) == 0
    texts = [(tmp_path / "out" / str(i)).read_text().splitlines() for i in range(3)]
    coordinators = {text[1].split()[0] for text in texts}
    assert len(coordinators) == 1
    host, port = coordinators.pop().split(":")
    assert host == "127.0.0.1" and 1024 < int(port) < 65536
    assert [text[1].split()[1:] for text in texts] == [["3", str(i)] for i in range(3)]
    assert all(text[0] == str(ROOT) and text[3] == "[--config=x][a b]" for text in texts)
    assert all(text[2] == "all" for text in texts)


@pytest.mark.parametrize("visible", [None, "4,5,6,7"])
def test_processes_share_the_gpus(
    tmp_path: pathlib.Path, ready: dict[str, str], visible: str | None
) -> None:
    tools = tmp_path / "tools"
    executable(tools / "nvidia-smi", "#!/bin/bash\nfor i in 0 1 2 3; do echo GPU $i: x; done\n")
    environment = ready | {"CMTL_PLATFORM": "cuda", "PATH": f"{tools}:/usr/bin:/bin"}
    if visible:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    assert start_processes(2, environment, tmp_path / "out").wait(20) == 0
    shares = [(tmp_path / "out" / str(i)).read_text().splitlines()[2] for i in range(2)]
    assert shares == ["0,1", "2,3"]
    refused = run(["bash", LAUNCH / "processes.sh", "5"], environment)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1 and "5 processes" in refused.stderr


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_processes_forward_signals(
    tmp_path: pathlib.Path, ready: dict[str, str], name: str
) -> None:
    out = tmp_path / "out"
    launcher = start_processes(2, ready | {"FAKE_WAITS": "1"}, out)
    launcher.send_signal(signal.Signals[f"SIG{name}"])
    assert launcher.wait(20) == 0
    assert [(out / f"{i}.signals").read_text() for i in range(2)] == [f"{name}\n"] * 2


def test_processes_end_the_rest_when_one_fails(
    tmp_path: pathlib.Path, ready: dict[str, str]
) -> None:
    out = tmp_path / "out"
    environment = ready | {
        "FAKE_WAITS": "1", "FAKE_FAILING": "1", "FAKE_STUBBORN": "2", "CMTL_GRACE_SECONDS": "1",
    }
    start = time.monotonic()
    launcher = start_processes(3, environment, out)
    assert launcher.wait(20) == 3, "the status of the process that failed by itself"
    assert time.monotonic() - start < 15
    assert (out / "0.signals").read_text() == "TERM\n"
    assert (out / "2.signals").read_text() == "TERM\n", "ignored SIGTERM, so it was killed"


@pytest.mark.parametrize("arguments", [[], ["0"], ["--config=x"]])
@pytest.mark.parametrize("name", ["processes.sh", "openmpi.sh"])
def test_number_of_processes_is_checked(
    name: str, arguments: list[str], ready: dict[str, str]
) -> None:
    result = run(["bash", LAUNCH / name, *arguments], ready)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "number of processes" in result.stderr


def test_openmpi_gives_each_rank_its_place(tmp_path: pathlib.Path, ready: dict[str, str]) -> None:
    # The stand-in for mpirun runs rank 1 of 2, with the variables Open MPI sets.
    mpirun = executable(
        tmp_path / "mpirun",
        "#!/bin/bash\n"
        '[[ "$1 $2" == "-np 2" ]] || exit 97\n'
        'while [[ $1 != bash ]]; do shift; done\n'
        "export OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_LOCAL_RANK=1\n"
        'exec "$@"\n',
    )
    subprocess.run(
        ["bash", LAUNCH / "openmpi.sh", "2", "--config=x", "a b"], check=True, timeout=20,
        env=ready | {"CMTL_MPIRUN": str(mpirun), "CMTL_COORDINATOR": "first:1234"},
    )
    lines = (tmp_path / "out" / "1").read_text().splitlines()
    assert lines[1:] == ["first:1234 2 1", "1", "[--config=x][a b]"]


def test_slurm_starts_every_task_in_the_repository(
    tmp_path: pathlib.Path, ready: dict[str, str]
) -> None:
    srun = executable(
        tmp_path / "tools" / "srun",
        '#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done\n'
        'echo "$CMTL_DISTRIBUTED" >"$FAKE_OUT/distributed"\nexec "$@"\n',
    )
    # SLURM runs a copy of the script from a folder of its own.
    copy = tmp_path / "slurm_script"
    copy.write_bytes((LAUNCH / "slurm.sh").read_bytes())
    environment = ready | {
        "PATH": f"{srun.parent}:/usr/bin:/bin", "CMTL_PROCESS_ID": "task",
        "SLURM_SUBMIT_DIR": str(ROOT),
    }
    subprocess.run(["bash", copy, "--config=x"], env=environment, check=True, timeout=20)
    assert (tmp_path / "out" / "distributed").read_text() == "auto\n"
    lines = (tmp_path / "out" / "task").read_text().splitlines()
    assert (lines[0], lines[3]) == (str(ROOT), "[--config=x]")
    elsewhere = run(["bash", copy], environment | {"SLURM_SUBMIT_DIR": str(tmp_path)})
    assert elsewhere.returncode == 1
    assert elsewhere.stderr.count("\n") == 1 and "repository root" in elsewhere.stderr


def test_kubernetes_manifest_is_consistent(tmp_path: pathlib.Path, ready: dict[str, str]) -> None:
    manifest = yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"] == int(values["CMTL_NUM_PROCESSES"])
    name = manifest["metadata"]["name"]
    assert values["CMTL_COORDINATOR"].split(":")[0] == f"{name}-{replicated['name']}-0-0.{name}"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job["template"]["spec"]["volumes"]}
    assert (ROOT / container["args"][0].removeprefix("--config=")).is_file()
    # What a pod runs, run here.
    assert container["command"][2].splitlines()[-1] == f"exec {COMMAND}"
    subprocess.run(
        [*container["command"], *container["args"]], cwd=ROOT, check=True, timeout=20,
        env=ready | {"CMTL_PROCESS_ID": "pod"},
    )
    lines = (tmp_path / "out" / "pod").read_text().splitlines()
    assert lines[3] == "".join(f"[{argument}]" for argument in container["args"])


def test_package_and_requirements_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        line
        for line in (ROOT / "requirements-test.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    extras = project["project"]["optional-dependencies"]
    assert extras["test"] == wanted
    assert set(extras["serve"] + extras["onnx"]) <= set(wanted)
    jax = next(
        line
        for line in (ROOT / "requirements-cpu.txt").read_text().splitlines()
        if line.startswith("jax>")
    )
    for version in ("12", "13"):
        assert extras[f"cuda{version}"] == [jax.replace("jax", f"jax[cuda{version}]", 1)]


# A stand-in for Python: unpacks, trains until told to end, and records each call.
FAKE_TRAINING = """#!/bin/bash
if [[ $1 == -V ]]; then echo "Python 3.12.0"; exit 0; fi
echo "$@" >>"$FAKE_OUT/calls"
case $2 in
  zipfile) mkdir -p "$5" ;;
  cmtl_jax.main)
    [[ $* == *--mode=export* ]] && exit 0
    if [[ $FAKE_WAITS ]]; then
      trap 'exit 143' TERM
      for ((i = 0; i < 300; i++)); do sleep 0.1; done
    fi
    exit "$FAKE_STATUS" ;;
esac
"""


@pytest.mark.parametrize(
    ("minutes", "waits", "status", "exported"),
    [("", "", 0, True), ("0.01", "1", 143, True), ("", "", 1, False)],
    ids=["all its steps", "time is up", "an error"],
)
def test_packed_trains_for_its_time_and_leaves_weights(
    tmp_path: pathlib.Path, ready: dict[str, str],
    minutes: str, waits: str, status: int, exported: bool,
) -> None:  # fmt: skip
    executable(pathlib.Path(ready["CMTL_VENV"]) / "bin" / "python", FAKE_TRAINING)
    zip_file = tmp_path / "my data.zip"
    zip_file.touch()
    environment = ready | {
        "CMTL_MINUTES": minutes, "FAKE_WAITS": waits, "FAKE_STATUS": "0" if waits else str(status),
    }  # fmt: skip
    command = ["bash", LAUNCH / "packed.sh", zip_file, "--config=configs/sha.py", "--workdir=w"]
    result = run(command, environment)
    assert result.returncode == status, result.stderr
    calls = (tmp_path / "out" / "calls").read_text().splitlines()
    assert calls[0].startswith("-m zipfile -e")
    given = "-m cmtl_jax.main --config=configs/sha.py --workdir=w"
    assert calls[1] == f"{given} --config.dataset.raw_dir={tmp_path}/my data"
    assert (len(calls) == 3 and "--mode=export" in calls[2]) == exported
    run(command, environment | {"FAKE_WAITS": "", "CMTL_MINUTES": ""})
    again = (tmp_path / "out" / "calls").read_text().splitlines()[len(calls) :]
    assert again[0] == calls[1], "it is unpacked once"


@pytest.mark.parametrize(
    ("arguments", "minutes", "message"),
    [(["--config=x"], "", "data first"), (["a.zip", "--config=x"], "soon", "number of minutes")],
)
def test_packed_refuses_with_one_line(
    tmp_path: pathlib.Path, ready: dict[str, str], arguments: list[str], minutes: str, message: str
) -> None:
    (tmp_path / "a.zip").touch()
    result = subprocess.run(
        ["bash", LAUNCH / "packed.sh", *arguments], cwd=tmp_path, check=False, timeout=30,
        env=ready | {"CMTL_MINUTES": minutes}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert message in result.stderr
