"""Repositories as the hub has them, its cache, and a hub on this machine that huggingface_hub can ask."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import torch
from helpers.architectures import MODELS
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

COMMIT = "d2b54d7af419055f204690fe0385959616a1723e"
TOKENS = dict(pad_token_id=1, bos_token_id=0, eos_token_id=2)
LAYOUTS = ("whole", "shards", "pickle", "old pickle", "pickled shards", "backbone alone")
"""safetensors and pickles, whole and in shards; GPT-2's and OPT's repositories hold the backbone without its prefix."""


def snapshot(folder: Path, name: str, layout: str) -> dict[str, torch.Tensor]:
    """Writes a tiny random model in the form of a repository and returns its tensors."""
    family, shape = MODELS[name]
    auto: Any = AutoModelForMaskedLM if family in ("roberta", "deberta-v2") else AutoModelForCausalLM
    torch.manual_seed(0)
    model = auto.from_config(AutoConfig.for_model(family, **{**TOKENS, **shape}))
    folder.mkdir(parents=True)
    tensors = dict(model.state_dict())
    if layout in ("whole", "shards"):
        model.save_pretrained(folder, max_shard_size="10KB" if layout == "shards" else "1GB")
    else:
        model.config.save_pretrained(folder)
        kept = tensors
        if layout == "backbone alone":  # in fp16, with the masks that old repositories hold
            prefix = f"{model.base_model_prefix}."
            kept = {key.removeprefix(prefix): x.half() for key, x in tensors.items() if key.startswith(prefix)}
            kept |= {"h.0.attn.bias": torch.ones(1, 1, 40, 40, dtype=torch.uint8)}
        parts = {"pytorch_model.bin": list(kept)}
        if layout == "pickled shards":
            parts = {f"pytorch_model-0000{part}-of-00002.bin": list(kept)[part - 1 :: 2] for part in (1, 2)}
            index = {"metadata": {}, "weight_map": {key: part for part, keys in parts.items() for key in keys}}
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        for part, keys in parts.items():
            content = {key: kept[key] for key in keys}
            torch.save(content, folder / part, _use_new_zipfile_serialization=layout != "old pickle")
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate("<>abc")}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return tensors


def in_cache(root: Path, repository: str = "some/tiny") -> Path:
    """Returns the folder of a snapshot in the hub's cache."""
    (folder := root / f"models--{repository.replace('/', '--')}").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)  # the newest commit is another one
    return folder / "snapshots" / COMMIT


class FakeHub(NamedTuple):
    """Where it listens, and the files that were downloaded from it."""

    endpoint: str
    downloaded: list[str]


@contextmanager
def serving(repositories: dict[str, dict[str, Path]]) -> Iterator[FakeHub]:
    """Serves repositories: by name, by commit, the folder of its files."""
    downloaded: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            """Answers with the headers alone."""
            self.do_GET()

        def do_GET(self) -> None:
            """Answers the listing of a commit, or gives a file of it."""
            path, name = self.path.partition("?")[0], ""
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
                repository, kind, commit = found.groups()
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                (repository, commit, name), kind = found.groups(), "file"
            else:
                return self.answer(404, b"")
            if repository not in repositories:
                return self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            if commit not in repositories[repository]:
                return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            folder = repositories[repository][commit]
            files = {each.name: each.read_bytes() for each in sorted(folder.iterdir())}
            ids = {each: hashlib.sha1(content).hexdigest() for each, content in files.items()}
            if kind == "file":
                if name not in files:
                    return self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
                if self.command == "GET":
                    downloaded.append(name)
                return self.answer(200, files[name], {"ETag": f'"{ids[name]}"', "X-Repo-Commit": commit})
            if kind == "tree":
                listing = [{"type": "file", "path": n, "size": len(c), "oid": ids[n]} for n, c in files.items()]
            else:
                siblings = [{"rfilename": n, "size": len(c), "blobId": ids[n]} for n, c in files.items()]
                listing = {"id": repository, "sha": commit, "siblings": siblings}
            return self.answer(200, json.dumps(listing).encode())

        def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield FakeHub(f"http://127.0.0.1:{server.server_port}", downloaded)
    finally:
        server.shutdown()
        server.server_close()
