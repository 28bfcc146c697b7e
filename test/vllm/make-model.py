"""Writes a tiny Llama with seeded random weights: its text is meaningless, its token ids and KV blocks are real.

usage: make-model.py TOKENIZER_DIRECTORY MODEL_DIRECTORY
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def main(tokenizer: Path, model: Path) -> None:
    partial = model.with_name(model.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, partial / name)
    data = json.loads((partial / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {token: id for token, id in data["model"]["vocab"].items()}
    ids.update({added["content"]: added["id"] for added in data["added_tokens"]})
    names = json.loads((partial / "tokenizer_config.json").read_text(encoding="utf-8"))
    torch.manual_seed(20261123)
    config = LlamaConfig(
        vocab_size=-(-(max(ids.values()) + 1) // 64) * 64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # vLLM's CPU attention takes 32, 64, 80, 96, ... only.
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=ids.get(names.get("bos_token") or ""),
        eos_token_id=ids.get(names.get("eos_token") or ""),
        dtype=torch.bfloat16,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(partial)
    shutil.rmtree(model, ignore_errors=True)
    partial.rename(model)


main(Path(sys.argv[1]), Path(sys.argv[2]))
