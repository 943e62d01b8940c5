"""The doctor's lines: right where all is well, and saying what to do where it is not."""

import json
import os
import stat
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app import browser, cli, doctor
from engine.settings import HOUSE


def lines(check: Callable[[], Any]) -> list[str]:
    return [str(finding) for finding in doctor._guarded(check)]


def test_every_line_has_a_state_and_a_sentence(workspace: Path) -> None:
    findings = doctor.examine()
    names = {finding.name for finding in findings}
    expected = {
        "Python",
        "packages",
        "torch",
        "GPU",
        "torchaudio",
        "libsndfile",
        "PyAV",
        "espeak-ng",
        "workspace",
        "disk",
        "file system",
    }
    assert expected | {"browser"} <= names
    for finding in findings:
        assert finding.said.endswith(".") and "\n" not in str(finding), finding
        assert finding.advice or finding.state == "ok", f"{finding} does not say what to do."


def test_its_exit_code_and_json_tell_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for state, code in {"ok": 0, "warning": 0, "wrong": 1}.items():
        finding = doctor.Finding("thing", state, "It is so.", "Do this.")  # type: ignore[arg-type]
        monkeypatch.setattr(doctor, "CHECKS", (lambda found=finding: iter([found]),))
        monkeypatch.setattr(sys, "argv", ["launch.py", "doctor", "--json"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert int(end.value.code or 0) == code
        said = json.loads(capsys.readouterr().out)
        assert said == [{"name": "thing", "state": state, "said": "It is so.", "advice": "Do this."}]


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 11, 12), "warning"), ((3, 11, 13), "ok"), ((3, 12, 1), "warning"), ((3, 12, 11), "ok"), ((3, 13, 3), "warning")]
    + [((3, 13, 4), "ok"), ((3, 14, 0), "ok")],
)
def test_an_old_python_is_named(version: tuple[int, int, int], state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Version = namedtuple("Version", "major minor micro releaselevel serial")
    monkeypatch.setattr(sys, "version_info", Version(*version, "final", 0))
    (line,) = lines(doctor._python)
    assert line.startswith(state)


@pytest.mark.parametrize(("package", "floor"), sorted(doctor.FLOORS.items()))
def test_a_version_below_its_floor_is_wrong(package: str, floor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    version = doctor.metadata.version
    parts = floor.split(".")
    older = ".".join([*parts[:-1], str(int(parts[-1]) - 1)]) if parts[-1] != "0" else f"{parts[0]}.{int(parts[1]) - 1}.9"
    monkeypatch.setattr(doctor.metadata, "version", lambda name: older if name == package else version(name))
    found = lines(doctor._packages)
    assert any(
        line.startswith("wrong") and f"{package} {older} has known holes; {floor} does not." in line for line in found
    )
    assert not any(line.startswith("ok") for line in found)
    monkeypatch.setattr(doctor.metadata, "version", lambda name: floor if name == package else version(name))
    assert not any(line.startswith("wrong") for line in lines(doctor._packages))


def test_the_pins_are_above_the_floors() -> None:
    pins = dict(
        line.split("#")[0].strip().split("==")
        for line in (HOUSE / "requirements.txt").read_text().splitlines()
        if "==" in line
    )
    for name, floor in doctor.FLOORS.items():
        assert name not in pins or doctor._numbers(pins[name]) >= doctor._numbers(floor)


def test_a_missing_package_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    version = doctor.metadata.version

    def without(name: str) -> str:
        if name == "soundfile":
            raise doctor.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor.metadata, "version", without)
    assert any(line.startswith("wrong") and "soundfile is not installed." in line for line in lines(doctor._packages))


def test_torchaudio_tells_whether_its_native_part_was_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = SimpleNamespace(__version__="2.11.0", __file__=str(tmp_path / "__init__.py"))
    monkeypatch.setitem(sys.modules, "torchaudio", fake)  # type: ignore[arg-type]
    assert "were removed" in lines(doctor._torchaudio)[0]
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "_torchaudio.abi3.so").touch()
    assert "with its native libraries" in lines(doctor._torchaudio)[0]


def test_a_gpu_that_the_build_cannot_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert lines(doctor._torch)[1].startswith("warning  GPU")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert lines(doctor._torch)[1].startswith("ok       GPU")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert lines(doctor._torch)[1].startswith("warning  GPU")
    card = SimpleNamespace(name="A card", total_memory=80e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    assert lines(doctor._torch)[1:] == ["ok       GPU          A card, 80 GB."] * 2


@pytest.mark.parametrize(("free", "state"), [(0.5e9, "wrong"), (5e9, "warning"), (50e9, "ok")])
def test_a_full_disk_is_seen(free: float, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    assert [line for line in lines(doctor._workspace) if line.startswith(f"{state:<9}disk")]


def test_a_network_file_system_is_named(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    import psutil

    mounts = [
        SimpleNamespace(mountpoint="/", fstype="ext4"),
        SimpleNamespace(mountpoint=str(workspace.parent), fstype="nfs4"),
    ]
    mounts.append(SimpleNamespace(mountpoint=f"{workspace}-not-this", fstype="cifs"))
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    assert any(line.startswith("warning  file system  nfs4") for line in lines(doctor._workspace))


def test_a_workspace_that_cannot_be_written_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    (line,) = lines(doctor._workspace)
    assert line.startswith("wrong") and "Permission denied" in line and "AUSCULT_WORKSPACE" in line


def test_a_package_that_does_not_import_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)  # type: ignore[arg-type]
    (line,) = lines(doctor._espeak)
    assert line.startswith("wrong    espeak")


def test_a_broken_extension_is_wrong(workspace: Path) -> None:
    file = workspace / "extensions" / "corpora" / "torn.py"
    file.parent.mkdir(parents=True)
    file.write_text("1 +")
    assert any(line.startswith("wrong") and "torn.py" in line for line in lines(doctor._extensions))


def make_browser(file: Path, code: int) -> Path:
    file.write_text(f"#!/bin/sh\nexit {code}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


@pytest.fixture
def no_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any browser; programs in the returned folder are on its path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin")
    monkeypatch.delenv("AUSCULT_BROWSER", raising=False)
    monkeypatch.setattr(browser, "_NAMES", ("a-chromium", "a-chrome"))
    monkeypatch.setattr(browser, "_PLACES", ())
    return folder


def test_a_browser_that_does_not_start_is_none(no_browser: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert browser.find_browser() == ""
    assert lines(doctor._browser)[0].startswith("warning  browser")
    make_browser(no_browser / "a-chromium", 1)
    assert browser.find_browser() == ""
    good = make_browser(no_browser / "a-chrome", 0)
    assert browser.find_browser() == str(good)
    asked = make_browser(no_browser / "mine", 0)
    monkeypatch.setenv("AUSCULT_BROWSER", str(asked))
    assert browser.find_browser() == str(asked)


def test_a_browser_is_fetched_one_way_after_the_other(no_browser: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = [
        ("First.", [["false"]]),
        (
            "Second.",
            [
                ["true"],
                ["/bin/sh", "-c", f"printf '#!/bin/sh\\n' > {no_browser}/a-chrome && chmod +x {no_browser}/a-chrome"],
            ],
        ),
    ]
    monkeypatch.setattr(browser, "_ways", lambda: ways)
    said: list[str] = []
    assert browser.get_browser(said.append) == (str(no_browser / "a-chrome"), "")
    assert said == ["First.", "Second."]


def test_without_any_way_to_a_browser_the_reason_is_said(no_browser: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "_ways", lambda: [("First.", [["/bin/sh", "-c", "echo E: no such host >&2; exit 1"]])])
    path, reason = browser.get_browser(lambda sentence: None)
    assert path == "" and "none could be fetched" in reason and "E: no such host" in reason
