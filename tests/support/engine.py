"""A real llama.cpp, in this process, on a port of its own, with a model small enough to answer in milliseconds.

The model is the one that LLMD_MODEL names, else one with random weights, written here. Either way its context is 4096
tokens and it never ends by itself, so that how long an answer is, is the test's to say.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

CONTEXT_TOKENS = 4096
MODEL_NAME = "tiny"

_WIDTH, _HEADS, _INNER, _LAYERS = 64, 4, 128, 2
_WORDS = ("the", "a", "cat", "dog", "sun", "moon", "ran", "saw", "was", "big", "red", "and", "then", "happy", "home")


@dataclass
class Engine:
    """`url` is its OpenAI-compatible base URL."""

    url: str

    def chat(self, **body: Any) -> dict[str, Any]:
        """Its own answer to a chat completion, without llmd in between."""
        response = httpx.post(f"{self.url}/chat/completions", json=body, trust_env=False)
        answer: dict[str, Any] = response.json()
        return answer

    def slot(self) -> dict[str, Any]:
        """Its one slot: whether it `is_processing`, and under `n_prompt_tokens` all that it has read or said."""
        response = httpx.get(self.url.removesuffix("/v1") + "/slots", trust_env=False)
        (slot,) = response.json()
        return dict(slot)

    def said_when_free(self) -> int:
        """Wait until the slot is free; how many tokens it has read and said by then."""
        while (slot := self.slot())["is_processing"]:
            pass
        return int(slot["n_prompt_tokens"])


@contextmanager
def running(model: Path, port: int = 0, *, shaped: bool = False) -> Iterator[Engine]:
    """llama.cpp's server with one slot; it stops when its object goes.

    shaped  it holds answers to a schema and ends them by itself: it cannot without ending, or without jinja
    """
    import xllamacpp  # half a second, which only the tests that need it wait

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {MODEL_NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = 1
    params.n_ctx = 0  # the model's own
    params.endpoint_slots = True
    params.use_jinja = shaped
    params.sampling.ignore_eos = not shaped
    params.cpuparams.n_threads = 1
    params.verbosity = 0
    server = xllamacpp.Server(params)
    try:
        yield Engine(f"{server.listening_address}/v1")
    finally:
        del server


@pytest.fixture(scope="session")
def engine_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "tiny.gguf"
    named = os.environ.get("LLMD_MODEL")
    if named:
        shutil.copyfile(named, file)
        file.chmod(0o600)
        _lengthen(file)
    else:
        write_model(file)
    return file


@pytest.fixture(scope="session")
def engine(engine_model: Path) -> Iterator[Engine]:
    with running(engine_model) as started:
        yield started


@pytest.fixture
def usual_ports() -> Iterator[None]:
    """Who starts an engine where llmd looks for one, and who wants none to be there, take turns."""
    with open(f"{tempfile.gettempdir()}/llmd-tests-{os.getuid()}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lengthen(file: Path) -> None:
    import gguf

    reader = gguf.GGUFReader(file, "r+")
    field = reader.fields["llama.context_length"]
    field.parts[field.data[0]][0] = CONTEXT_TOKENS
    reader.data.flush()


def write_model(file: Path) -> None:
    """A llama with random weights, and a vocabulary of some words above single bytes.

    The first dimension of every token is the same and no layer changes it, so that its column of the output matrix is a
    bias: it keeps the model from saying control tokens and single bytes.
    """
    import gguf
    import numpy as np

    random = np.random.default_rng(7)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * 256]
    # A word is read as one token only where it can be put together from its beginning on.
    words = dict.fromkeys(f"▁{word[:end]}" for word in _WORDS for end in range(1, len(word) + 1))
    spoken = [*words, "▁", ".", ",", *"abcdefghijklmnopqrstuvwxyz"]
    unspoken = len(tokens)
    tokens += spoken
    kinds += [gguf.TokenType.NORMAL] * len(spoken)

    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * unspoken + [-float(rank) for rank in range(len(spoken))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    def tensor(name: str, *shape: int) -> Any:
        values = random.normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32)
        if name.endswith(("attn_output.weight", "ffn_down.weight")):
            values[0] = 0
        return values

    embedding = random.normal(0, 1, (len(tokens), _WIDTH)).astype(np.float32)
    embedding[:, 0] = 4
    output = tensor("output.weight", len(tokens), _WIDTH) * 8
    output[:, 0] = np.where(np.arange(len(tokens)) < unspoken, -50, 0)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(_WIDTH, np.float32))
    for layer in range(_LAYERS):
        for name, shape in {
            "attn_q.weight": (_WIDTH, _WIDTH),
            "attn_k.weight": (_WIDTH, _WIDTH),
            "attn_v.weight": (_WIDTH, _WIDTH),
            "attn_output.weight": (_WIDTH, _WIDTH),
            "ffn_gate.weight": (_INNER, _WIDTH),
            "ffn_up.weight": (_INNER, _WIDTH),
            "ffn_down.weight": (_WIDTH, _INNER),
        }.items():
            writer.add_tensor(f"blk.{layer}.{name}", tensor(name, *shape))
        for name in ("attn_norm.weight", "ffn_norm.weight"):
            writer.add_tensor(f"blk.{layer}.{name}", np.ones(_WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
