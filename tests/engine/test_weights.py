"""Files of weights that are none, that are cut short, and that are made to harm: a sentence each, and nothing is run."""

import io
import os
import re
import struct
import subprocess
import sys
import tarfile
import types
import zipfile
from argparse import Namespace
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import save_file

from engine import upstream, weights
from engine.errors import Refused
from engine.settings import HOUSE, settings

WEIGHTS = {"encoder.weight": torch.arange(6.0).reshape(2, 3), "encoder.bias": torch.ones(2)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test writes its file."""
    return tmp_path / "model.pt"


def refusal(file: Path) -> str:
    """The sentence that a file gets, after which nothing of it is kept."""
    with pytest.raises(Refused) as refused:
        weights.read(file)
    said = str(refused.value)
    assert said.startswith(f"'{file}' ") and "\n" not in said and len(said) < 600
    assert weights.conversions(file) == []
    assert list((settings().downloads / "converted").glob(".*")) == []
    return said


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(600), "a PNG picture"),
        (b"\xff\xd8\xff\xe0" + bytes(600), "a JPEG picture"),
        (b"RIFF\x24\x08\x00\x00WAVEfmt ", "a WAV sound"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"\xef\xbb\xbf \n<HTML><body>Not found", "a web page"),
        (b'{"error": "Repository not found"}', "a text in JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a pointer of git-lfs"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"\x93NUMPY\x01\x00", "a NumPy array"),
    ],
)
def test_something_else_is_named(data: bytes, what: str, file: Path) -> None:
    file.write_bytes(data)
    said = refusal(file)
    assert f"is {what}" in said
    assert said.endswith("a file of weights (safetensors, or one written by torch.save) is expected.")


def test_nothing_and_folders_are_named(file: Path, tmp_path: Path) -> None:
    assert "is not there; a file of weights is expected" in refusal(file)
    file.touch()
    assert "is empty; a file of weights is expected" in refusal(file)
    assert "is a folder; a file of weights is expected" in refusal(tmp_path)


def test_safetensors_that_lie_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    for data in (
        struct.pack("<Q", 2**62) + b'{"a":{}}',
        struct.pack("<Q", 64) + b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}',
        b"\x08",
    ):
        file.write_bytes(data)
        assert "cannot be read as safetensors" in refusal(file)
    save_file(WEIGHTS, file)
    file.write_bytes(file.read_bytes()[:-5])
    assert "it may be cut short: fetch it again" in refusal(file)


@pytest.mark.usefixtures("own_process")
def test_a_process_of_its_own_reads_and_refuses(tmp_path: Path) -> None:
    file, canary = tmp_path / "model.pt", tmp_path / "canary"
    torch.save(WEIGHTS, file)
    assert torch.equal(weights.read(file).tensors["encoder.weight"], WEIGHTS["encoder.weight"])
    evil = tmp_path / "evil.pt"
    torch.save({"a": Calls(os.system, f"touch {canary}")}, evil)
    assert "it is a pickle that asks for posix.system" in refusal(evil)
    assert not canary.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_both_layouts_of_torch_are_read_once_and_what_is_cut_short_says_so(zipped: bool, file: Path) -> None:
    content = {"model": WEIGHTS, "args": Namespace(rate=0.1), "step": 3, "optimizer": {"state": torch.zeros(9)}}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    found = weights.read(file)
    assert {name: tensor.tolist() for name, tensor in found.under("model.").items()} == {
        name: tensor.tolist() for name, tensor in WEIGHTS.items()
    }
    assert found.facts == {"model": {}, "args": {"rate": 0.1}, "step": 3}
    (folder,) = weights.conversions(file)
    assert sorted(path.name for path in folder.iterdir()) == ["facts.json", "tensors.safetensors"]
    before = (folder / "facts.json").stat().st_mtime_ns
    weights.read(file)
    assert (folder / "facts.json").stat().st_mtime_ns == before
    whole = file.read_bytes()
    cut = file.with_name("cut.pt")
    cut.write_bytes(whole[: len(whole) - 80])
    assert "it is cut short" in refusal(cut) or "or it is cut short" in refusal(cut)
    cut.write_bytes(whole[:40])
    assert "cut short" in refusal(cut)


class Calls:
    """An object whose pickle holds a call."""

    def __init__(self, function: Callable[..., Any], *given: Any) -> None:
        self.call = (function, given)

    def __reduce__(self) -> Any:
        return self.call


def _inside_settings(call: Calls) -> Any:
    return Namespace(rate=1, inner=Namespace(deep=[{"x": call}]))


def _inside_key(call: Calls) -> Any:
    return {"model": WEIGHTS, ("key", 1): call}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", [lambda call: call, _inside_settings, _inside_key])
@pytest.mark.parametrize(
    ("function", "named"),
    [(os.system, "posix.system"), (eval, "__builtin__.eval"), (getattr, "__builtin__.getattr")],
)
def test_a_call_is_refused_by_name_and_not_run(
    function: Callable[..., Any], named: str, place: Callable[[Calls], Any], zipped: bool, file: Path
) -> None:
    canary = file.with_name("canary")
    given = {
        os.system: (f"touch {canary}",),
        getattr: (WEIGHTS, "clear"),
    }.get(function, (f"open({str(canary)!r}, 'w')",))
    torch.save({"model": WEIGHTS, "extra": place(Calls(function, *given))}, file, _use_new_zipfile_serialization=zipped)
    assert f"it is a pickle that asks for {named}, which no file of weights needs. Nothing of it was run." in refusal(file)
    assert not canary.exists()


def written(file: Path, program: bytes) -> Path:
    """A file in torch's layout whose pickle is the given program."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return file


def asked(module: str, name: str) -> bytes:
    """The pickle program that puts what is found under a name on the stack."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "hub.load"),
        ("torch", "load"),
        ("torch", "classes"),
        ("torch", "_dynamo"),
        ("torch", "anythingStorage"),
        ("torch.storage", "TypedStorage.__init__"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_import_dotted_name"),
        ("torch.nn", "Linear"),
        ("builtins", "type"),
        ("builtins", "__import__"),
        ("collections", "namedtuple"),
        ("codecs", "open"),
        ("subprocess", "Popen"),
        ("engine.confine", "limit"),
    ],
)
def test_nothing_beyond_tensors_and_containers_is_found(module: str, name: str, file: Path) -> None:
    said = refusal(written(file, asked(module, name) + b"."))
    assert f"asks for {module}.{name}, which" in said


def test_a_name_made_to_confuse_is_shown_safely(file: Path) -> None:
    module = b"os\nOK\x1b[2J" + b"x" * 10_000
    program = b"\x80\x04X" + struct.pack("<I", len(module)) + module + b"\x8c\x06system\x93."
    said = refusal(written(file, program))
    assert "asks for os?OK?[2Jxxx" in said and "\x1b" not in said


def test_records_and_the_reader_cannot_be_changed(file: Path) -> None:
    # BUILD with a pair sets attributes of whatever is on the stack, here of the class that stands for settings objects.
    program = b"\x80\x02" + asked("argparse", "Namespace") + b"N}X\x0c\x00\x00\x00dump_patches\x88s\x86b."
    assert "TypeError" in refusal(written(file, program))


def nested(opening: bytes, closing: bytes, times: int) -> bytes:
    return b"\x80\x02" + opening * times + closing * times + b"."


def laughs() -> bytes:
    """A list of ten lists of ten lists ... ten times; each is there once."""
    program = b"\x80\x02]q\x00"
    for level in range(1, 11):
        program += b"]q" + bytes([level]) + b"(" + (b"h" + bytes([level - 1])) * 10 + b"e"
    return program + b"."


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (laughs(), "holds more than 2,000,000 values besides its weights"),
        (nested(b"(", b"l", 200_000), "it holds no tensor|it broke the process|nested without end"),
        (nested(b"(K\x01", b"d", 200_000), "it holds no tensor|it broke the process|nested without end|cut short"),
        (b"\x80\x02]r\xff\xff\xff\x3f.", "claims to need far more memory|it holds no tensor"),  # its place among a billion
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.", "claims to need far more memory|cut short"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b".", "cut short"),
        (b"\x80\x02" + asked("builtins", "bytes") + b"\x8a\x05\x00\x00\x00\x00\x40\x85R.", "claims to need far more memory"),
        (b"\x80\x02" + asked("torch", "FloatStorage") + b"\x8a\x06\x00\x00\x00\x00\x00\x10\x85R.", "more memory|cut short"),
        (b"\x80\x02]q\x00h\x00a.", "it holds no tensor"),  # a list that holds itself
    ],
    ids=["laughs", "lists", "dicts", "memo", "bytes8", "frame", "bytes", "storage", "self"],
)
def test_a_bomb_gets_a_sentence(program: bytes, said: str, file: Path) -> None:
    assert re.search(said, refusal(written(file, program)))


def test_a_tensor_that_claims_to_be_larger_than_its_file_is_refused(file: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(100_000, 100_000)}, file)
    assert "it claims to hold 40,000,000,000 bytes of weights, more than a file of its size can hold" in refusal(file)


def test_archives_of_other_things_are_named(file: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../evil.txt", "x")
    assert "it is a zip archive of ../../evil.txt, not one that torch.save wrote" in refusal(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../archive/data.pkl", b"\x80\x02}.")
        archive.writestr("/abs/data/0", "x")
    refusal(file)
    with tarfile.open(file, "w") as tar:
        for name in ("storages", "tensors", "pickle"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname, link.mode = tarfile.LNKTYPE, "../../../victim", 0o777
            tar.addfile(link)
    assert "it is a tar archive; unpack it first" in refusal(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt"]


def test_a_program_in_torchscript_is_refused(file: Path) -> None:
    archive = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, archive)
    with zipfile.ZipFile(file, "w") as program, zipfile.ZipFile(archive) as saved:
        for name in saved.namelist():
            program.writestr(name, saved.read(name))
        program.writestr("archive/constants.pkl", b"\x80\x02).")
        program.writestr("archive/code/__torch__.py", b"class M(Module): pass")
    assert "it is a program in TorchScript. Auscult never runs code of a checkpoint" in refusal(file)


def fake(monkeypatch: pytest.MonkeyPatch, path: str, **members: Any) -> Any:
    """A module of a package that is not installed, for writing pickles that name it."""
    parts = path.split(".")
    for count in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:count]), types.ModuleType(".".join(parts[:count])))
    for name, member in members.items():
        if isinstance(member, type):
            member.__module__, member.__qualname__, member.__name__ = path, name, name
        setattr(sys.modules[path], name, member)
    return sys.modules[path]


def test_settings_objects_of_other_packages_come_out_as_plain_facts(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Node:
        def __init__(self, **state: Any) -> None:
            self.__dict__.update(state)

    class Dictionary:
        def __init__(self) -> None:
            self.symbols = ["<s>", "a"]

    class BertAdam:
        def __init__(self) -> None:
            self.rate = 0.5

    omegaconf = fake(monkeypatch, "omegaconf.dictconfig", DictConfig=type("DictConfig", (Node,), {}))
    nodes = fake(monkeypatch, "omegaconf.nodes", AnyNode=type("AnyNode", (Node,), {}))
    fairseq = fake(monkeypatch, "fairseq.data.dictionary", Dictionary=Dictionary)
    optimizers = fake(monkeypatch, "optimizers", BertAdam=BertAdam)
    cfg = omegaconf.DictConfig(
        _metadata=None, _parent=None, _content={"layers": nodes.AnyNode(_val=12), "name": nodes.AnyNode(_val="hubert")}
    )
    counts = defaultdict(list)
    counts["a"].append(1)
    torch.save(
        {
            "cfg": {"model": cfg},
            "args": Namespace(arch="wav2vec", layers=[1, 2]),
            "dictionary": fairseq.Dictionary(),
            "Optimizer": optimizers.BertAdam(),
            "trainer": optimizers.BertAdam(),
            "counts": counts,
            "path": Path("a/b"),
            "dtype": torch.float16,
            "Transformer": OrderedDict(WEIGHTS),
        },
        file,
    )
    found = weights.read(file)
    assert sorted(found.tensors) == ["Transformer.encoder.bias", "Transformer.encoder.weight"]
    facts = dict(found.facts)
    assert facts.pop("path") == ["a", "b"]
    assert facts == {
        "cfg": {"model": {"layers": 12, "name": "hubert"}},
        "args": {"arch": "wav2vec", "layers": [1, 2]},
        "dictionary": {"symbols": ["<s>", "a"]},
        "trainer": {"rate": 0.5},
        "counts": {"a": [1]},
        "Transformer": {},
    }


def test_weights_that_share_memory_or_are_views_come_out_whole(file: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    torch.save({"a": base, "tied": base, "view": base.t()[1:], "half": torch.ones(2).half()}, file)
    found = weights.read(file).tensors
    assert torch.equal(found["tied"], base) and torch.equal(found["view"], base.t()[1:])
    assert found["half"].dtype == torch.float16


def test_weights_of_another_model_name_what_is_missing_and_what_is_too_much(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "hubert")
    (tmp_path / "model.safetensors").unlink()
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        Refused, match=r"are not those of the model that its configuration describes: \d+ weights are missing"
    ):
        upstream.load(f"hf:{tmp_path}")


def test_an_index_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.checkpoint(folder, "hubert")
    (folder / "model.safetensors").rename(tmp_path / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}')
    with pytest.raises(Refused, match="names files that are not safetensors beside it"):
        upstream.load(f"hf:{folder}")


def test_the_reader_knows_nothing_of_its_parents_secrets_and_writes_in_its_folder_only(tmp_path: Path) -> None:
    script = f"""
import os
from pathlib import Path
from engine import confine
held = confine.write_only_in(Path("{tmp_path}"))
Path("{tmp_path}/inside").write_text("x")
for act in (lambda: Path("{tmp_path.parent}/outside").write_text("x"), lambda: os.execv("/bin/true", ["true"])):
    try:
        act()
        print("done" if held else "refused")
    except PermissionError:
        print("refused")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=HOUSE, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused", "refused"]
    assert (tmp_path / "inside").exists()


def test_the_environment_of_the_reader_is_bare(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, str] = {}

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        told.update(options["env"])
        return subprocess.CompletedProcess(command, 1, "enough\n")

    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr("engine.weights.subprocess", SimpleNamespace(**{**vars(subprocess), "run": run}))
    torch.save(WEIGHTS, file)
    assert "cannot be read as weights: enough" in refusal(file)
    assert set(told) <= {"PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "HOME", "TMPDIR", "OMP_NUM_THREADS"}
    assert Path(told["HOME"]).parent == Path(told["TMPDIR"]).parent == settings().downloads / "converted"
