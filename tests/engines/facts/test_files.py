from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.engines.facts import digests, files
from pytest_llmparity.engines.facts.gguf import NotWhole, read_header

# ---- GGUF ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["F16", "Q8_0", "Q6_K", "Q4_K_M", "Q4_0", "Q2_K"])
def test_quantisation_is_read_from_the_file(name: str, models: Path) -> None:
    assert files.gguf_facts(models / f"tiny-{name}.gguf")["quantization"].value == name


@pytest.mark.parametrize("name", ["F16", "Q4_K_M", "Q2_K"])
def test_the_header_is_what_the_gguf_package_reads(name: str, models: Path) -> None:
    theirs = gguf.GGUFReader(models / f"tiny-{name}.gguf")

    ours = read_header(models / f"tiny-{name}.gguf")

    assert ours.metadata == {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert [(t.name, t.kind, t.elements, ours.data_at + t.offset) for t in ours.tensors] == [
        (t.name, t.tensor_type.value, int(t.n_elements), t.data_offset) for t in theirs.tensors
    ]


@pytest.mark.parametrize(
    ("name", "types", "bits"),
    [
        ("F16", "F16:29 F32:9", 16.01),
        ("Q4_K_M", "F32:9 Q4_K:24 Q6_K:5", 5.014),
        ("Q8_0", "F32:9 Q8_0:29", 8.515),
    ],
)
def test_tensors_are_counted_by_type_and_their_bits_with_the_scales(
    models: Path, name: str, types: str, bits: float
) -> None:
    facts = files.gguf_facts(models / f"tiny-{name}.gguf")

    assert (facts["tensor_types"].value, facts["bits_per_weight"].value) == (types, bits)


def test_a_file_and_a_directory_of_one_model_share_template_and_vocabulary(models: Path) -> None:
    file, folder = files.gguf_facts(models / "tiny-F16.gguf"), files.hf_facts(models)

    assert file["template_sha256"].value == folder["template_sha256"].value
    assert file["tokenizer_sha256"].value == folder["tokenizer_sha256"].value
    assert (file["quantization"].value, folder["quantization"].value) == ("F16", "BF16")
    assert (file["format"].value, folder["format"].value) == ("gguf", "safetensors")


Written = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Write a GGUF file by the gguf package; returns where it is."""

    def write(
        name: str = "x.gguf",
        *,
        tensors: Mapping[str, Any] | None = None,
        fill: Callable[[gguf.GGUFWriter], None] = lambda _: None,
    ) -> Path:
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        fill(writer)
        for tensor, values in (tensors or {}).items():
            writer.add_tensor(tensor, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / name

    return write


def test_a_file_without_metadata_has_only_digest_and_format(written: Written) -> None:
    file = written()

    assert set(files.gguf_facts(file)) == {"digest", "format"}
    assert files.gguf_header(file) == {}


def test_the_sampling_a_file_asks_for_is_spelt_as_the_identity_spells_it(written: Written) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_float32("general.sampling.temp", 0.6)
        writer.add_int32("general.sampling.top_k", 20)
        writer.add_float32("general.sampling.penalty_repeat", 1.05)
        writer.add_string("general.sampling.sequence", "kp")

    assert json.loads(files.gguf_header(written(fill=fill))["sampling"]) == {
        "repetition_penalty": 1.05,
        "temperature": 0.6,
        "top_k": 20,
    }


def test_holes_the_converter_filled_are_no_tokens(written: Written) -> None:
    def tokens(*listed: str) -> str:
        file = written(f"{len(listed)}.gguf", fill=lambda writer: writer.add_token_list(list(listed)))
        return str(files.gguf_header(file)["tokenizer_sha256"])

    assert tokens("a", "b") == tokens("a", "b", "[PAD2]", "[PAD3]")
    assert tokens("a", "b") != tokens("a", "b", "[PAD1]", "c", "d")


def test_other_values_than_expected_are_no_facts(written: Written) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_string("general.file_type", "x")
        writer.add_uint32("tokenizer.chat_template", 1)
        writer.add_string("tokenizer.ggml.tokens", "x")
        writer.add_array("nested", [1, 2])

    assert set(files.gguf_facts(written(fill=fill))) == {"digest", "format"}


def test_a_split_file_is_read_as_one(written: Written) -> None:
    parts = [
        written(f"m-0000{n}-of-00002.gguf", tensors={f"t{n}": np.zeros((2, 32), np.float32 if n == 1 else np.float16)})
        for n in (1, 2)
    ]
    lines = "".join(f"{hashlib.sha256(part.read_bytes()).hexdigest()}  {part.name}\n" for part in parts)

    facts = files.gguf_facts(parts[0])

    assert facts["tensor_types"].value == "F16:1 F32:1"
    assert facts["bits_per_weight"].value == 24.0
    assert facts["digest"].value == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    assert facts["digest"].raw == parts[0].name


def test_a_type_nobody_here_knows_has_a_number_and_no_bits(written: Written) -> None:
    file = written(tensors={"t": np.zeros((1, 32), np.float32)})
    content = file.read_bytes()
    place = content.index(struct.pack("<Q", 1) + b"t") + 9 + 4 + 16
    file.write_bytes(content[:place] + struct.pack("<I", 999) + content[place + 4 :])

    header = files.gguf_header(file)

    assert header["tensor_types"] == "type-999:1"
    assert "bits_per_weight" not in header


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.001, 0.5, 0.999])
def test_a_file_that_ends_early_is_named(tmp_path: Path, models: Path, share: float) -> None:
    whole = (models / "tiny-F16.gguf").read_bytes()
    file = tmp_path / "x.gguf"
    file.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(errors.LaunchError) as caught:
        files.gguf_header(file)

    assert str(caught.value) == (
        f"{str(file)!r} is no whole GGUF file (it ends early or is damaged); download or convert it again."
    )


U32, U64 = struct.Struct("<I").pack, struct.Struct("<Q").pack


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"GGUF" + U32(1) + U64(0) + U64(0), "version 2 or 3"),
        (b"GGUF" + U32(3) + U64(0) + U64(1) + U64(1) + b"k" + U32(77), "value of type 77"),
        (b"GGUF" + U32(3) + U64(0) + U64(1) + U64(2**62), "ends early"),
        (b"GGUF" + U32(3) + U64(0) + U64(1) + U64(1) + b"k" + U32(9) + U32(0) + U64(2**62), "more entries"),
        (b"GGUF" + U32(3) + U64(0) + U64(1) + U64(1) + b"k" + U32(9) + (U32(9) + U64(1)) * 9, "type 9"),
        (b"GGUF" + U32(3) + U64(1) + U64(0) + U64(1) + b"t" + U32(2**31), "more dimensions"),
        (
            b"GGUF" + U32(3) + U64(0) + U64(1) + U64(17) + b"general.alignment" + U32(8) + U64(1) + b"x",
            "alignment is no number",
        ),
    ],
    ids=["empty", "version", "type", "length", "array", "nested", "dimensions", "alignment"],
)
def test_a_damaged_header_is_refused_without_believing_its_numbers(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.gguf").write_bytes(content)

    with pytest.raises(NotWhole, match=reason):
        read_header(tmp_path / "x.gguf")


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match=r"cannot be read \(Is a directory\); give a file"):
        files.gguf_header(tmp_path)


# ---- Hugging Face --------------------------------------------------------------------------------------------------


def safetensors(path: Path, tensors: Mapping[str, tuple[str, list[int]]], **metadata: str) -> None:
    header = {name: {"dtype": kind, "shape": shape, "data_offsets": [0, 0]} for name, (kind, shape) in tensors.items()}
    text = json.dumps(({"__metadata__": metadata} if metadata else {}) | header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def test_a_folder_that_says_nothing_has_no_facts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")

    assert files.hf_facts(tmp_path) == {}


def test_the_tiny_model_says_everything(models: Path) -> None:
    facts = {name: fact.value for name, fact in files.hf_facts(models).items()}

    assert facts["digest"] == "sha256:" + hashlib.sha256((models / "model.safetensors").read_bytes()).hexdigest()
    assert (facts["tensor_types"], facts["bits_per_weight"]) == ("BF16:38", 16.0)
    assert "revision" not in facts


def test_a_split_checkpoint_is_all_the_files_its_index_names(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors"}}
    safetensors(tmp_path / "m-1.safetensors", {"a": ("BF16", [2, 2]), "c": ("F32", [2])})
    safetensors(tmp_path / "consolidated.safetensors", {"x": ("F32", [1])})
    assert "digest" not in files.hf_facts(tmp_path / "nowhere")

    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "digest" not in files.hf_facts(tmp_path), "a part is missing"
    safetensors(tmp_path / "m-2.safetensors", {"b": ("BF16", [2, 2])})
    facts = files.hf_facts(tmp_path)

    lines = "".join(
        f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("m-1.safetensors", "m-2.safetensors")
    )
    assert facts["digest"].value == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    assert facts["digest"].raw == "list of 2 files"
    assert facts["tensor_types"].value == "BF16:2 F32:1"
    assert facts["bits_per_weight"].value == 19.2


def test_which_of_several_files_are_the_weights_nobody_guesses(tmp_path: Path) -> None:
    for name in ("a", "b"):
        safetensors(tmp_path / f"{name}.safetensors", {})

    assert "digest" not in files.hf_facts(tmp_path)


PACKED: dict[str, tuple[dict[str, Any], dict[str, tuple[str, list[int]]], str, float | None]] = {
    "awq": (
        {"quantization_config": {"quant_method": "awq", "bits": 4}},
        {"l.qweight": ("I32", [64, 8]), "l.qzeros": ("I32", [1, 8]), "l.scales": ("F16", [1, 64])},
        "AWQ",
        4.312,
    ),
    "gptq": (
        {"quantization_config": {"quant_method": "gptq", "bits": 8}},
        {"l.qweight": ("I32", [16, 64]), "l.g_idx": ("I32", [64]), "n.weight": ("F16", [64])},
        "GPTQ_INT8",
        8.615,
    ),
    "compressed-tensors": (
        {
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
            }
        },
        {"l.weight_packed": ("I32", [64, 8]), "l.weight_scale": ("BF16", [64, 1]), "l.weight_shape": ("I64", [2])},
        "W4A16",
        4.25,
    ),
    "fp8": (
        {"quantization_config": {"quant_method": "fp8"}},
        {"l.weight": ("F8_E4M3", [64, 64]), "l.weight_scale_inv": ("F32", [1, 1])},
        "FP8",
        8.008,
    ),
    "bitsandbytes": (
        {
            "quantization_config": {
                "quant_method": "bitsandbytes",
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
            }
        },
        {
            "l.weight": ("U8", [2048, 1]),
            "l.weight.absmax": ("U8", [64]),
            "l.weight.quant_state.bitsandbytes__nf4": ("U8", [80]),
        },
        "NF4",
        4.281,
    ),
    "mlx": (
        {"quantization": {"group_size": 64, "bits": 4, "model.b": {"group_size": 64, "bits": 8}}},
        {
            "model.a.weight": ("U32", [64, 8]),
            "model.a.scales": ("BF16", [64, 1]),
            "model.a.biases": ("BF16", [64, 1]),
            "model.b.weight": ("U32", [64, 16]),
        },
        "MLX_4BIT",
        6.25,
    ),
    "modelopt": (
        {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}},
        {"l.weight": ("U8", [64, 32]), "l.weight_scale": ("F8_E4M3", [64, 4]), "l.weight_scale_2": ("F32", [])},
        "NVFP4",
        4.508,
    ),
    "packed by nobody we know": (
        {"quantization_config": {"quant_method": "hqq"}},
        {"l.W_q": ("U8", [64, 32])},
        "HQQ",
        None,
    ),
    "a type nobody here knows": ({"dtype": "bfloat16"}, {"l.weight": ("F3", [64])}, "BF16", None),
    "nothing but buffers": ({"dtype": "bfloat16"}, {"l.mask": ("BOOL", [64])}, "BF16", None),
}


@pytest.mark.parametrize(("config", "tensors", "name", "bits"), PACKED.values(), ids=PACKED)
def test_bits_of_a_weight_are_counted_where_several_are_packed_into_one_number(
    tmp_path: Path, config: dict[str, Any], tensors: dict[str, tuple[str, list[int]]], name: str, bits: float | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    safetensors(tmp_path / "model.safetensors", tensors)

    facts = files.hf_facts(tmp_path)

    assert facts["quantization"].value == name
    assert (facts["bits_per_weight"].value if "bits_per_weight" in facts else None) == bits
    assert facts["format"].value == ("mlx" if name.startswith("MLX") else "safetensors")


def test_what_modelopt_did_stands_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"dtype": "bfloat16"}')
    (tmp_path / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')

    assert files.hf_facts(tmp_path)["quantization"].value == "FP8"


def test_weights_that_mlx_wrote_unquantised_are_known_by_their_metadata(tmp_path: Path) -> None:
    safetensors(tmp_path / "model.safetensors", {"a": ("BF16", [1])}, format="mlx")

    assert files.hf_facts(tmp_path)["format"].value == "mlx"


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"{]", b"\x0e" + b"\0" * 7 + b'{"a":{"x":[]}}']
)
def test_a_file_that_is_no_safetensors_file_has_only_its_digest(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)

    assert set(files.hf_facts(tmp_path)) == {"digest", "format"}


def test_a_snapshot_of_the_hub_knows_its_commit(tmp_path: Path) -> None:
    folder = tmp_path / "models--a--b/snapshots" / ("ab" * 20)
    folder.mkdir(parents=True)

    assert files.hf_facts(folder)["revision"].value == "ab" * 20


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ('"{{ x }}"', "{{ x }}"),
        ('[{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]', "d"),
        ('[{"name": "tools", "template": "t"}]', None),
        ("7", None),
    ],
)
def test_the_template_stands_in_the_tokenizer_s_configuration(tmp_path: Path, template: str, text: str | None) -> None:
    (tmp_path / "tokenizer_config.json").write_text(f'{{"chat_template": {template}}}')

    facts = files.hf_facts(tmp_path)

    assert {name: fact.value for name, fact in facts.items()} == (
        {} if text is None else {"template_sha256": files.text_sha256(text + "\n")}
    )


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"vocab": {"b": 1, "a": 0}}, "added_tokens": [{"id": 2, "content": "<s>"}]},
        {"model": {"vocab": [["a", -1.0], ["b", -2.0], ["<s>", 0.0]]}},
        {"model": {"vocab": {"a": 0, "b": 1, "x": None}}, "added_tokens": [{"id": 2, "content": "<s>"}, 7]},
    ],
    ids=["bpe", "unigram", "odd"],
)
def test_a_vocabulary_is_ids_and_spellings_however_it_is_written(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))

    expected = hashlib.sha256(b"0 1 a1 1 b2 3 <s>").hexdigest()

    assert files.hf_facts(tmp_path)["tokenizer_sha256"].value == expected


def test_generation_config_is_spelt_as_the_identity_spells_it(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6, "eos_token_id": [1]}')

    assert files.hf_sampling(tmp_path) == '{"do_sample": true, "temperature": 0.6}'
    assert files.hf_sampling(tmp_path / "nowhere") == ""


# ---- digests -------------------------------------------------------------------------------------------------------


def test_a_changed_file_is_hashed_again(tmp_path: Path, models: Path) -> None:
    file = Path(shutil.copy(models / "config.json", tmp_path))
    before = files.sha256(file)
    file.write_text("{}")

    assert files.sha256(file) == hashlib.sha256(b"{}").hexdigest() != before


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, in which every digest is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "REMEMBERED", 0)
    digests._sha256.cache_clear()
    return tmp_path / "cache/pytest-llmparity/sha256"


def notes(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def test_the_digest_of_a_large_file_is_kept_for_later_runs(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"one")
    first = digests.sha256(tmp_path / "f")
    (note,) = notes(cache)
    note.write_text(note.read_text().replace(first, "kept"))
    digests._sha256.cache_clear()

    assert digests.sha256(tmp_path / "f") == "kept"


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"path": "/elsewhere"}'])
def test_a_note_that_says_something_else_is_not_believed(cache: Path, tmp_path: Path, damage: str) -> None:
    (tmp_path / "f").write_bytes(b"one")
    digests.sha256(tmp_path / "f")
    notes(cache)[0].write_text(damage)
    digests._sha256.cache_clear()

    assert digests.sha256(tmp_path / "f") == hashlib.sha256(b"one").hexdigest()


def test_a_file_with_the_size_and_time_of_another_is_another(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"one")
    digests.sha256(tmp_path / "f")
    stat = (tmp_path / "f").stat()
    (tmp_path / "g").write_bytes(b"two")
    (tmp_path / "g").replace(tmp_path / "f")
    os.utime(tmp_path / "f", ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert digests.sha256(tmp_path / "f") == hashlib.sha256(b"two").hexdigest()


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(cache: Path, tmp_path: Path) -> None:
    cache.parent.parent.write_text("in the way")
    (tmp_path / "f").write_bytes(b"one")

    assert digests.sha256(tmp_path / "f") == hashlib.sha256(b"one").hexdigest()


def test_brackets_nested_by_the_thousand_are_a_file_that_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"dtype": "float32"}')
    (tmp_path / "tokenizer.json").write_text("[" * 200_000)

    assert set(files.hf_facts(tmp_path)) == {"quantization"}
