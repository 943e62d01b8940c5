"""The launcher on a machine that has nothing but Python, without the network: a copy of it with requirements of its own."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from app import verbs
from engine.settings import HOUSE

CLI = "import os, sys\nprint('handed over', sys.argv[1:], os.getcwd(), os.environ.get('PYTHONSAFEPATH'), flush=True)\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A checkout with the launcher, a command line that says what it was given, and nothing to install."""
    folder = tmp_path / "a clone"
    (folder / "app").mkdir(parents=True)
    shutil.copy(HOUSE / "launch.py", folder)
    shutil.copy(HOUSE / "app" / "verbs.py", folder / "app")
    (folder / "app" / "__init__.py").touch()
    (folder / "app" / "cli.py").write_text(CLI)
    (folder / "requirements.txt").write_text("")
    (folder / "requirements-dev.txt").write_text("")
    return folder


def offline(**more: str) -> dict[str, str]:
    """An environment in which pip asks no index."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {**kept, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, **more}


def launch(clone: Path, *words: str, cwd: Path | None = None, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(clone / "launch.py"), *words]
    return subprocess.run(command, cwd=cwd or clone, env=offline(**more), capture_output=True, text=True, timeout=120)


@pytest.fixture
def module(clone: Path) -> ModuleType:
    """The clone's launcher, imported."""
    spec = importlib.util.spec_from_file_location("launch_of_the_clone", clone / "launch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real environment with nothing but pip, to be copied: making one takes seconds."""
    folder = tmp_path_factory.mktemp("environment") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder


@pytest.fixture
def ready(clone: Path, environment: Path) -> Path:
    """The clone with an environment in which nothing was installed yet."""
    shutil.copytree(environment, clone / ".venv", symlinks=True, copy_function=os.link)
    return clone


def test_help_needs_no_environment(clone: Path) -> None:
    since = time.monotonic()
    said = launch(clone, "--help")
    assert said.returncode == 0 and said.stderr == ""
    for written, sentence in [*list(verbs.VERBS.values())[1:], *verbs.SERVING.values()]:
        assert f"{written} " in said.stdout and sentence in said.stdout
    assert not (clone / ".venv").exists()
    assert time.monotonic() - since < 20  # half a second on an idle machine; this only finds an import that hangs
    assert launch(clone, "-h").stdout == said.stdout


def test_the_launcher_is_the_standard_library_alone(clone: Path) -> None:
    program = "import sys; sys.argv = ['launch.py', '--help']; import launch; launch.main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", program], cwd=clone, capture_output=True, text=True, check=True)
    names = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert names - set(sys.stdlib_module_names) - {"launch", "app", "__main__", "__mp_main__"} == set()


def test_an_older_python_is_told_so(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module.sys, "version_info", (3, 10, 13))
    assert module.main([]) == 1
    assert capsys.readouterr().out == "Auscult needs Python 3.11 or newer; this is Python 3.10.\n"


def test_first_start_makes_the_environment_and_hands_over(clone: Path, tmp_path: Path) -> None:
    said = launch(clone, "run", "a b", "--x=1", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "Making a Python environment" in said.stdout and "Everything is installed." in said.stdout
    # The user's folder stays the current one, and its "app" would not be taken for ours.
    assert f"handed over ['run', 'a b', '--x=1'] {tmp_path} 1" in said.stdout
    second = launch(clone, "jobs")
    assert second.stdout == f"handed over ['jobs'] {clone} 1\n"
    # Only tests and checks need the other list.
    assert not (clone / ".venv" / "requirements-dev.stamp").exists()
    assert "requirements-dev.txt" in launch(clone, "test").stdout
    assert "requirements-dev.txt" not in launch(clone, "check").stdout
    # Another list is installed anew.
    (clone / "requirements.txt").write_text("# changed\n")
    assert "Installing what requirements.txt lists" in launch(clone).stdout


def test_what_cannot_be_installed_is_not_stamped(ready: Path) -> None:
    (ready / "requirements.txt").write_text("a-package-that-is-nowhere==1.0\n")
    said = launch(ready)
    assert said.returncode == 1 and "handed over" not in said.stdout and "Traceback" not in said.stderr
    assert "a-package-that-is-nowhere" in said.stderr and "pip could not install" in said.stderr
    assert not (ready / ".venv" / "requirements.stamp").exists()


def test_no_network_is_said_in_one_sentence(ready: Path) -> None:
    (ready / "requirements.txt").write_text("a-package-that-is-nowhere==1.0\n")
    # A closed port of this machine stands for an index that cannot be reached.
    settings = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_TIMEOUT": "1"}
    said = launch(ready, **settings)
    assert said.returncode == 1 and "The package index could not be reached." in said.stderr
    assert said.stderr.strip().count("\n") == 0


def test_an_interrupted_install_goes_on_at_the_next_start(
    module: ModuleType, ready: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def interrupt(requirements: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_install", interrupt)
    assert module.main(["jobs"]) == 130
    assert "The next start goes on from here." in capsys.readouterr().err
    assert not (ready / ".venv" / "requirements.stamp").exists()


def test_an_environment_that_does_not_work_is_made_anew(clone: Path) -> None:
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/no/longer/there/python3.11")
    (clone / ".venv" / "requirements.stamp").write_text("x")
    said = launch(clone)
    assert said.returncode == 0 and "Making a Python environment" in said.stdout


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "is full"),
        (
            "NewConnectionError('<...>: Failed to establish a new connection: [Errno -3] Temporary failure in name",
            "not be reached",
        ),
        ("ConnectTimeoutError(<pip._vendor...>, 'Connection to index timed out. (connect timeout=15)')", "not be reached"),
        ("ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed'))", "not be reached"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate", "PIP_CERT"),
        ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/x'", "may not be written"),
        ("ERROR: No matching distribution found for x", ""),
    ],
)
def test_failures_a_person_can_mend_have_a_sentence(module: ModuleType, said: str, sentence: str) -> None:
    reason = module._reason(said)
    assert sentence in reason and bool(reason) == bool(sentence)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Collecting torch==2.13.0 (from -r requirements.txt (line 2))", "Finding torch"),
        ("  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (899.7 MB)", "Fetching torch, 899.7 MB"),
        ("  Downloading https://index.test/a/torch-2.13.0-cp311-none-any.whl (1.2 GB)", "Fetching torch, 1.2 GB"),
        ("  Downloading typer-0.29.2-py3-none-any.whl.metadata (16 kB)", ""),
        ("  Using cached rich-15.0.0-py3-none-any.whl (310 kB)", "Taking from this machine rich, 310 kB"),
        (
            "Processing /wheels/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl (from -r r.txt (line 2))",
            "Taking from this machine torch",
        ),
        ("Building wheel for umap-learn (pyproject.toml): started", "Building umap-learn"),
        ("Installing collected packages: a, b, c", "Installing 3 packages; this takes a minute or two"),
        ("Looking in links: /wheels", ""),
        ("Requirement already satisfied: torch", ""),
    ],
)
def test_pip_speaks_plainly(module: ModuleType, line: str, words: str) -> None:
    assert module.plain(line) == words


def test_a_full_disk_and_a_missing_venv_module_are_said(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: usage._replace(free=10**9))
    with pytest.raises(module.Stop, match="1.0 GB free"):
        module._make_environment()
    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: usage._replace(free=10**11))
    text = "The virtual environment was not created successfully because ensurepip is not available."
    failed = subprocess.CompletedProcess([], 1, stdout=text, stderr="")
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(module.Stop, match="venv module is missing.*apt install"):
        module._make_environment()


def test_two_starts_do_not_install_at_once(ready: Path) -> None:
    import fcntl

    with (ready / "launch.py").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        command = [sys.executable, str(ready / "launch.py"), "jobs"]
        second = subprocess.Popen(command, cwd=ready, env=offline(), stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        assert second.stdout.readline() == "Another start is setting up; waiting for it.\n"
        assert second.poll() is None
    out, _ = second.communicate(timeout=60)
    assert "handed over" in out


NATIVE = ("_torchaudio.abi3.so", "libtorchaudio.abi3.so")
# A torchaudio whose native part does not load, as PyPI's beside a CPU build of torch: what fails is the real loader.
AUDIO = """
import ctypes, pathlib
for file in sorted(pathlib.Path(__file__).parent.glob("lib/*.so")):
    try:
        ctypes.CDLL(str(file))
    except OSError as error:
        raise OSError("Could not load this library: " + str(file)) from error
"""


def give_torchaudio(clone: Path, cuda: str) -> Path:
    """Packages called torch and torchaudio in the clone's environment, and the folder of the native files."""
    packages = next(iter((clone / ".venv" / "lib").glob("python*"))) / "site-packages"
    (packages / "torch").mkdir()
    (packages / "torch" / "__init__.py").write_text("from . import version\n")
    (packages / "torch" / "version.py").write_text(f"cuda = {cuda!r}\n")
    folder = packages / "torchaudio" / "lib"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text(AUDIO)
    for name in NATIVE:
        (folder / name).write_bytes(b"no library")
    loads = next(Path(path) for path in sys.path if Path(path, "_json").parent.name == "lib-dynload")
    shutil.copy(next(loads.glob("_json*.so")), folder / "good.so")
    return folder


@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_native_files_that_cannot_load_are_removed_beside_a_cpu_build_only(ready: Path, cuda: Any) -> None:
    folder = give_torchaudio(ready, cuda)
    said = launch(ready)
    left = {file.name for file in folder.iterdir()}
    if cuda is None:
        assert said.returncode == 0 and left == {"good.so"}
        assert said.stdout.count("This torch is a CPU build") == 1 and all(name in said.stdout for name in NATIVE)
        assert "CPU build" not in launch(ready).stdout
    else:
        assert left == {"good.so", *NATIVE}
        assert said.returncode == 1 and "torchaudio still does not load" in said.stderr
