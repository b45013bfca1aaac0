"""A folder -> weight files that want to run code, take all memory, or lie; what has to be said of each.

As a program it looks at each of them with limited memory:  python zoo.py FOLDER  ->  JSON on stdout.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

HUGE = 10**10
MARK = "the code ran"


class Evil:
    """An object whose unpickling makes a folder beside the file."""

    def __init__(self, folder: Path) -> None:
        self.mark = str(folder / MARK)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


class Sneaky:
    """A small tensor that changes its shape once it has been checked."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        import torch

        make, arguments = torch.ones(1).__reduce_ex__(2)[:2]
        return make, arguments, self.state


@dataclass(frozen=True)
class Beast:
    """A hostile file or folder."""

    path: Path
    says: str
    """What the message holds."""
    inspectable: bool = False
    """`inspect` may tell what is in it; only using it is refused."""


def zoo(folder: Path) -> list[Beast]:
    """Write them all."""
    makers: tuple[Callable[[Path], Iterator[Beast]], ...] = (
        bombs,
        lengths,
        zips,
        tensors,
        safetensors,
        models,
        folders,
    )
    found = []
    for make in makers:
        (folder / make.__name__).mkdir()
        found += list(make(folder / make.__name__))
    return found


def bombs(folder: Path) -> Iterator[Beast]:
    """Code in each format."""
    import torch

    evil, says = Evil(folder), "asks for posix.mkdir"
    for protocol in (2, 4, 5):
        path = folder / f"protocol_{protocol}.pkl"
        path.write_bytes(pickle.dumps({"model": evil}, protocol=protocol))
        yield Beast(path, says)
    (folder / "protocol_0.pkl").write_bytes(pickle.dumps({"model": evil}, protocol=0))
    yield Beast(folder / "protocol_0.pkl", "not a weight file")
    torch.save({"model": {"w": torch.ones(2)}, "extra": evil}, folder / "zip.pth")
    yield Beast(folder / "zip.pth", says)
    torch.save({"model": evil}, folder / "old.pth", _use_new_zipfile_serialization=False)
    yield Beast(folder / "old.pth", "could run code")
    content = {"state_dict": {"model.w": torch.ones(2)}, "hyper_parameters": {"cfg": evil}, "tao_model": "oneformer"}
    torch.save(content, folder / "tao.pth")
    yield Beast(folder / "tao.pth", says)
    for module, name in (
        ("builtins", "eval"), ("builtins", "getattr"), ("builtins", "__import__"), ("torch.hub", "load"),
        ("numpy", "load"), ("torch", "load"), ("collections", "namedtuple"), ("functools", "partial"),
        ("torch._utils", "_rebuild_qtensor"), ("torch", "FloatStorage.__init__.__globals__"), ("runpy", "run_path"),
    ):  # fmt: skip
        path = folder / f"{module}.{name}.pkl"
        words = "".join(chr(0x8C) + chr(len(word)) + word for word in (module, name))
        path.write_bytes(b"\x80\x04" + words.encode("latin1") + b"\x93\x8c\x01x\x85R.")
        yield Beast(path, f"asks for {module}.{name}")
    path = folder / "inert.pkl"  # a name that is let in is never called
    path.write_bytes(b"\x80\x02}X\x05\x00\x00\x00modelcomegaconf\nboom\nX\x01\x00\x00\x00x\x85Rs.")
    yield Beast(path, "holds no weights")


def lengths(folder: Path) -> Iterator[Beast]:
    """Pickles of a few bytes that claim to be of any length."""
    import torch

    eight = struct.pack("<Q", HUGE)
    claims = {
        "bytes8": b"\x80\x04\x8e" + eight + b"x.",
        "text8": b"\x80\x04\x8d" + eight + b"x.",
        "bytearray8": b"\x80\x05\x96" + eight + b"x.",
        "frame": b"\x80\x04\x95" + eight + b"N.",
        "memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
        "memo_text": b"\x80\x02Np2147483647\n.",
        "long": b"\x80\x02\x8b\xff\xff\xff\x7f\x00.",
        "deep": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
        "cut": pickle.dumps({"model": {"w": b"x" * 1000}}, protocol=4)[:-200],
        "made": b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\xe4\x0b\x54\x02\x85R.",  # bytearray(10**10)
    }
    for name, content in claims.items():
        (folder / f"{name}.pkl").write_bytes(content)
        yield Beast(folder / f"{name}.pkl", "holds no weights" if name in ("deep", "made") else "broken or cut short")
        torch.save({"w": torch.ones(1)}, folder / "right.pth")
        with zipfile.ZipFile(folder / "right.pth") as right, zipfile.ZipFile(folder / f"{name}.pth", "w") as wrong:
            for record in right.namelist():
                wrong.writestr(record, content if record.endswith("data.pkl") else right.read(record))
        yield Beast(folder / f"{name}.pth", "holds no weights" if name in ("deep", "made") else "broken or cut short")


def zips(folder: Path) -> Iterator[Beast]:
    """Archives that are cut, packed, or claim more than there is."""
    import torch

    torch.save({"model": {"w": torch.zeros(1000)}}, folder / "right.pth")
    content = (folder / "right.pth").read_bytes()
    for name, part in (("half", content[: len(content) // 2]), ("end", content[:-10]), ("head", content[:30])):
        (folder / f"{name}.pth").write_bytes(part)
        yield Beast(folder / f"{name}.pth", "broken or cut short")
    with zipfile.ZipFile(folder / "right.pth") as right:
        records = {name: right.read(name) for name in right.namelist()}
        big = next(record for record in right.infolist() if record.file_size == 4000)
    with zipfile.ZipFile(folder / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in records.items():
            packed.writestr(name, bytes(50_000_000) if name.endswith("data/0") else data)
    yield Beast(folder / "packed.pth", "packed records")
    sizes = struct.pack("<II", big.compress_size, big.file_size)
    lie = content.replace(sizes, struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0))
    (folder / "claims.pth").write_bytes(lie)
    yield Beast(folder / "claims.pth", "bytes of records and has")
    with zipfile.ZipFile(folder / "none.pth", "w") as empty:
        empty.writestr("archive/hello", b"")
    yield Beast(folder / "none.pth", "broken or cut short")
    with zipfile.ZipFile(folder / "storage.pth", "w") as less:
        for name, data in records.items():
            less.writestr(name, data[:40] if name.endswith("data/0") else data)
    yield Beast(folder / "storage.pth", "larger than what the file holds")


def tensors(folder: Path) -> Iterator[Beast]:
    """Tensors of many numbers in files of few bytes, and tensors of no numbers."""
    import numpy as np
    import torch

    big = {
        "repeated": torch.ones(1).expand(HUGE),
        "meta": torch.empty(HUGE, device="meta"),
        "sparse": torch.sparse_coo_tensor(torch.zeros(1, 0, dtype=torch.long), torch.zeros(0), (HUGE,)),
    }
    for name, tensor in big.items():
        torch.save({"model": {"w": tensor}}, folder / f"{name}.pth")
        yield Beast(
            folder / f"{name}.pth", "larger than what the file holds" if name == "repeated" else "asks for torch."
        )
        torch.save({"model": {"w": tensor}}, folder / f"{name}_old.pth", _use_new_zipfile_serialization=False)
        yield Beast(folder / f"{name}_old.pth", "larger than what the file holds")
    for name, state in (
        ("sneaky", {"_place": ((HUGE,), (0,), 0), "shape": (HUGE,)}),
        ("slots", (None, {"_place": ((HUGE,), (0,), 0)})),
    ):
        torch.save({"model": {"w": Sneaky(state)}}, folder / f"{name}.pth")
        yield Beast(folder / f"{name}.pth", "broken or cut short")
    raw = pickle.dumps({"model": {"w": np.zeros(3, np.float32)}}, protocol=2)
    small, large = b"K\x03\x85", b"\x8a\x05" + HUGE.to_bytes(5, "little") + b"\x85"
    assert small in raw
    (folder / "array.pkl").write_bytes(raw.replace(small, large))
    yield Beast(folder / "array.pkl", "larger than what the file holds")
    (folder / "objects.pkl").write_bytes(pickle.dumps({"model": {"w": np.array(["x"], object)}}, protocol=2))
    yield Beast(folder / "objects.pkl", "no numbers read here")


def safetensors(folder: Path) -> Iterator[Beast]:
    """Headers that lie."""

    def write(name: str, header: bytes, *, size: int | None = None) -> Beast:
        length = struct.pack("<Q", len(header) if size is None else size)
        (folder / f"{name}.safetensors").write_bytes(length + header + b"\0" * 16)
        return Beast(folder / f"{name}.safetensors", "broken or cut short")

    one = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    yield write("header", json.dumps({"w": one}).encode(), size=HUGE)
    yield write("offsets", json.dumps({"w": {**one, "data_offsets": [0, HUGE]}}).encode())
    yield write("shape", json.dumps({"w": {**one, "shape": [HUGE]}}).encode())
    yield write("type", json.dumps({"w": {**one, "dtype": "X99"}}).encode())
    yield write("nested", b'{"w":' + b"[" * 100_000)
    yield write("text", b"hello")


def models(folder: Path) -> Iterator[Beast]:
    """Checkpoints of ours that are not what they say."""
    import torch

    from model.weights.foreign import model_of
    from oneformer.model.weights.targets import ours_content

    info = model_of(text=False)
    name = "decoder.class_embed.weight"
    weight = info.state_dict[name]
    for word, tensor in (
        ("integers", weight.long()), ("complex", weight.to(torch.complex64)), ("float8", weight.to(torch.float8_e5m2)),
    ):  # fmt: skip
        content = ours_content(replace(info, state_dict={**info.state_dict, name: tensor}))
        torch.save(content, folder / f"{word}.pth")
        read = word == "integers"  # torch reads the others, our own reader does not
        yield Beast(folder / f"{word}.pth", "numbers" if read else "", inspectable=read)
    broken = weight.clone()
    broken[0, 0] = float("nan")
    torch.save(ours_content(replace(info, state_dict={**info.state_dict, name: broken})), folder / "nan.pth")
    yield Beast(folder / "nan.pth", "1 numbers that are NaN or infinite", inspectable=True)
    for section, key, value in (
        ("sem_seg_head", "transformer_enc_layers", 10**9), ("one_former", "dec_layers", 10**9),
        ("one_former", "num_object_queries", 10**9), ("text_encoder", "context_length", 10**9),
    ):  # fmt: skip
        content = ours_content(info)
        content["oneformer"]["model"][section][key] = value
        torch.save(content, folder / f"{key}.pth")
        yield Beast(folder / f"{key}.pth", f"model.{section}.{key} is 1000000000")
    for key, value in (("window_size", 10**6), ("depths", [1, 10**9, 1, 1])):
        content = ours_content(info)
        content["oneformer"]["model"]["backbone"]["swin"][key] = value
        torch.save(content, folder / f"{key}.pth")
        yield Beast(folder / f"{key}.pth", f"model.backbone.swin.{key} is")
    content = ours_content(replace(info, state_dict={name: weight}))
    torch.save(content, folder / "empty.pth")
    yield Beast(folder / "empty.pth", "no such backbone")


def folders(folder: Path) -> Iterator[Beast]:
    """Hugging Face folders whose files lie."""
    import torch

    from model.weights.foreign import model_of
    from oneformer.model.weights.hf_write import write_hf_folder

    right = folder / "right"
    right.mkdir()
    write_hf_folder(model_of(text=False), right)

    def copy(name: str) -> Path:
        made = folder / name
        made.mkdir()
        for file in right.iterdir():
            (made / file.name).hardlink_to(file)
        return made

    def config(name: str, says: str, **values: Any) -> Beast:
        made = copy(name)
        told = json.loads((right / "config.json").read_text())
        for key, value in values.items():
            part, _, inner = key.partition("__")
            told[part] = {**told[part], inner: value} if inner else value
        return written(made, "config.json", json.dumps(told), says)

    def written(made: Path, file: str, text: str, says: str) -> Beast:
        (made / file).unlink(missing_ok=True)
        (made / file).write_text(text)
        return Beast(made, says)

    for key in ("hidden_dim", "decoder_layers", "encoder_layers", "query_dec_layers", "num_queries", "conv_dim"):
        yield config(f"huge_{key}", "contradicts its weights", **{key: 10**9})
    yield config("huge_depths", "contradicts its weights", backbone_config__depths=[1, 10**9, 1, 1])
    yield config("huge_window", "contradicts its weights", backbone_config__window_size=10**6)
    yield config("text", "num_object_queries is the text", num_queries="many")
    yield config("infinite", "must be", dropout=float("inf"))
    yield config("other", "this is a bert model", model_type="bert")
    yield config("backbone", "its backbone is 'beit'", backbone_config__model_type="beit")
    yield config("act", "hidden_act is 'relu'", backbone_config__hidden_act="relu")
    yield config("classes", "contradicts its weights", id2label={"0": "only"})
    yield config("no_classes", "id2label is no list", id2label=[])
    yield written(copy("nested"), "config.json", "[" * 100_000, "cannot be read")
    yield written(copy("cut"), "config.json", '{"model_type": "one', "cannot be read")
    yield written(copy("list"), "config.json", "[1]", "holds no object")
    yield written(copy("processor"), "preprocessor_config.json", '{"image_mean": "abc"}', "image processor is broken")
    yield written(copy("mean"), "preprocessor_config.json", '{"image_mean": [1e9, 0, 0]}', "pixel_mean")
    bomb = copy("bomb")
    (bomb / "model.safetensors").unlink()
    torch.save({"w": Evil(folder)}, bomb / "pytorch_model.bin")
    yield Beast(bomb, "asks for posix.mkdir")
    outside = copy("outside")
    (outside / "model.safetensors").unlink()
    table = {"weight_map": {"w": "../right/model.safetensors"}}
    yield written(outside, "model.safetensors.index.json", json.dumps(table), "as a part")


def look(beast: Beast, label_map: Path) -> dict[str, Any]:
    """Inspect, convert and open one of them, as a user would."""
    from oneformer import load
    from oneformer.cli import main
    from oneformer.errors import UserError

    target = beast.path.parent / f"{beast.path.name}.target.pkl"
    out: dict[str, Any] = {"path": str(beast.path), "says": beast.says, "inspectable": beast.inspectable}
    for name, words in (
        ("inspect", ["inspect", str(beast.path)]),
        ("convert", ["convert", str(beast.path), str(target), "--label-map", str(label_map)]),
    ):
        with redirect_stderr(StringIO()) as err, redirect_stdout(StringIO()):
            out[name] = {"code": main(["checkpoint", *words]), "err": err.getvalue()}
    try:
        load(beast.path, device="cpu")
    except UserError as error:
        out["load"] = {"code": error.exit_code, "err": str(error)}
    out["ran"] = (beast.path.parent / MARK).exists() or (beast.path / MARK).exists() or target.exists()
    return out


def peak_mib() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def limited(folder: Path) -> dict[str, Any]:
    """Look at the whole zoo with 4 GiB of address space more than the program itself takes."""
    import resource

    beasts = zoo(folder)
    (folder / "right.json").write_text(json.dumps([{"id": i, "name": f"c{i}"} for i in range(5)]))
    look(Beast(folder / "folders" / "right", ""), folder / "right.json")  # everything is imported now
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 4 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = peak_mib()
    seen = [look(beast, folder / "right.json") for beast in beasts]
    return {"seen": seen, "grown_mib": peak_mib() - before}


if __name__ == "__main__":
    print(json.dumps(limited(Path(sys.argv[1]))))
