"""What a model must do before it is trained: each that does not is refused in one line."""

import json
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from scaling.spec.models import FromScratch
from scaling.spec.workloads import TokenClassification
from scaling.tasks.errors import DataError
from scaling.tasks.model.requirements import require_model
from scaling.tasks.prepare import prepare_task
from scaling.tasks.text_task import TextTask
from scaling.tasks.trainable import require_trainable
from tests.recipes import (
    EVALUATION,
    TINY_BERT,
    TINY_LLAMA,
    part_of_speech,
    pronunciation,
    spelling,
    tagging,
)
from tests.tasks.tiny_tasks import causal, classifying, refused
from tests.tasks.trained_models import save_model, save_tokenizer, trained_folder

needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="the extra lora is missing")


@torch.no_grad()
def sees_later_tokens(task: TextTask) -> bool:
    """By hand: whether the first logits of a text change with its last token."""
    model: Any = task.new_model(0).eval()
    ids = task.collate(np.array([8]), 0)["input_ids"]
    other = ids.clone()
    other[0, -1] = ids[0, 0] if ids[0, -1] != ids[0, 0] else ids[0, 1]
    assert not torch.equal(ids, other)
    before, after = model(input_ids=ids).logits, model(input_ids=other).logits
    assert not torch.allclose(before[:, -1], after[:, -1])
    return not torch.allclose(before[:, :-1], after[:, :-1], atol=1e-6)


ENCODERS = ["bert", "electra", "roberta", "xlm-roberta", "big_bird", "megatron-bert", "rembert"]


@pytest.mark.parametrize("architecture", ENCODERS)
def test_an_encoder_from_scratch_reads_from_the_left_alone(
    architecture: str, tmp_path: Path
) -> None:
    task = causal(tmp_path, {**TINY_LLAMA, "architecture": architecture})
    require_trainable(task, 0)
    assert not sees_later_tokens(task)


@pytest.mark.parametrize("architecture", ["bert", "electra"])
def test_a_trained_encoder_reads_from_the_left_alone(architecture: str, tmp_path: Path) -> None:
    folder = trained_folder(tmp_path / "model", architecture, intermediate_size=32)
    task = causal(tmp_path, {"pretrained": folder})
    require_trainable(task, 0)
    assert not sees_later_tokens(task)


@pytest.mark.parametrize(
    "model",
    [
        {**TINY_BERT, "config": {"is_decoder": False}},
        {**TINY_LLAMA, "architecture": "electra", "config": {"is_decoder": False}},
        {**TINY_LLAMA, "architecture": "cpmant"},
    ],
)
def test_what_sees_later_tokens_is_refused(model: Any, tmp_path: Path) -> None:
    task = causal(tmp_path, model)
    refused(task, "workload.model.architecture", "sees the tokens that it has to predict")


@pytest.mark.parametrize(
    "architecture", ["llama", "gpt2", "mistral", "mixtral", "mamba", "rwkv", "bloom", "opt"]
)
def test_causal_models_of_every_kind_pass(architecture: str, tmp_path: Path) -> None:
    config = {"sliding_window": 3} if architecture == "mistral" else {}
    sizes = {**TINY_LLAMA, "num_hidden_layers": 2}
    task = causal(tmp_path, {**sizes, "architecture": architecture, "config": config})
    require_trainable(task, 0)
    assert not sees_later_tokens(task)


class Leaking(nn.Module):
    """A model whose logits have a little of all tokens of one input, padding included."""

    def __init__(self, model: Any, name: str) -> None:
        super().__init__()
        self.model, self.name, self.config = model, name, model.config

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def forward(self, **inputs: Tensor) -> Any:
        output = self.model(**inputs)
        shape = [-1] + [1] * (output.logits.dim() - 1)
        leak = (2 + inputs[self.name]).double().log().sum(1).float().view(shape)
        output.logits = output.logits + 0.01 * leak * torch.arange(output.logits.shape[-1])
        return output


def test_a_decoder_that_sees_its_own_later_tokens_is_refused() -> None:
    task = prepare_task(spelling(generation=None), EVALUATION)
    require_model(task, task.new_model(0), 0, None)
    leaking = Leaking(task.new_model(0), "decoder_input_ids")
    with pytest.raises(DataError, match="decoder sees the tokens that it has to predict"):
        require_model(task, leaking, 0, None)


@pytest.mark.parametrize("workload", [part_of_speech(), tagging(), spelling(generation=None)])
def test_a_loss_that_padding_changes_is_refused(workload: Any) -> None:
    task = prepare_task(workload, EVALUATION)
    require_model(task, task.new_model(0), 0, None)
    leaking = Leaking(task.new_model(0), "input_ids")
    with pytest.raises(DataError, match="changes with the examples beside it"):
        require_model(task, leaking, 0, None)


@pytest.mark.parametrize("architecture", ["fnet", "nystromformer", "convbert"])
def test_architectures_without_a_mask_are_refused(architecture: str) -> None:
    workload = tagging().model_dump() | {"model": {**TINY_LLAMA, "architecture": architecture}}
    task = prepare_task(TokenClassification.model_validate(workload), EVALUATION)
    refused(task, "workload.model.architecture", "changes with the examples beside it")


def test_batch_norm_is_refused() -> None:
    task = prepare_task(tagging(), EVALUATION)
    model = task.new_model(0)
    model.add_module("norm", nn.BatchNorm1d(4))
    with pytest.raises(DataError, match="batch norm"):
        require_model(task, model, 0, None)


def test_the_pad_of_the_tokenizer_is_the_models(tmp_path: Path) -> None:
    # A decoder classifies at its last real token, which it tells by the pad of its configuration.
    folder = tmp_path / "model"
    save_model(folder, "gpt2", vocab_size=save_tokenizer(folder) + 1)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 31}))
    require_trainable(classifying(tmp_path, {"pretrained": str(folder)}), 0)


def packed(tmp_path: Path, architecture: str, **config: Any) -> TextTask:
    sizes = {**TINY_LLAMA, "num_hidden_layers": 2}
    model = {**sizes, "architecture": architecture, "config": config}
    return causal(tmp_path, model, packing=True, data={"max_length": 32})


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "mistral", "qwen3"])
@torch.no_grad()
def test_packed_documents_are_read_as_if_alone(architecture: str, tmp_path: Path) -> None:
    task = packed(tmp_path, architecture)
    require_trainable(task, 0)
    model: Any = task.new_model(0).eval()
    batch = task.collate(np.arange(1), 0)
    positions = batch["position_ids"][0]
    [start, *_] = [place for place in range(1, len(positions)) if positions[place] == 0]
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    together = model(**inputs, use_cache=False).logits
    stop = next((p for p in range(start + 1, len(positions)) if positions[p] == 0), len(positions))
    # What a document starts with is the end of the one before, which no other token is seen by.
    assert batch["input_ids"][0, start] == task.token_model.tokenizer.end_id
    alone = model(input_ids=batch["input_ids"][:, start:stop]).logits
    torch.testing.assert_close(together[:, start:stop], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_no_loss_of_a_document_depends_on_another(tmp_path: Path) -> None:
    task = packed(tmp_path, "llama")
    model = task.new_model(0).double().eval()
    batch = task.collate(np.arange(1), 0)
    start = int((batch["position_ids"][0, 1:] == 0).nonzero()[0]) + 1
    ids = batch["input_ids"].clone()
    ids[0, :start] = ids[0, :start].flip(0)
    assert not torch.equal(ids, batch["input_ids"])
    labels = batch["labels"].clone()
    labels[0, :start] = -100  # the losses of all that stands behind the first document
    losses = [
        float(task.loss_sum(model, {**batch, "labels": labels, "input_ids": changed}))
        for changed in (batch["input_ids"], ids)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


@pytest.mark.parametrize("architecture", ["bloom", "mamba", "opt", "bert", "rwkv"])
def test_packing_is_refused_where_documents_see_each_other(
    architecture: str, tmp_path: Path
) -> None:
    refused(packed(tmp_path, architecture), "workload.packing", "one document")


def test_ids_without_an_embedding_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    count = save_tokenizer(folder)
    save_model(folder, "gpt2", vocab_size=count - 3)
    task = causal(tmp_path, {"pretrained": str(folder)})
    refused(task, "workload.model", f"ids up to {count - 1}, .* embeddings of {count - 3} ids")
    task = causal(tmp_path, {**TINY_LLAMA, "config": {"vocab_size": 5}})
    refused(task, "workload.model", "ids up to .* embeddings of 5 ids")


def test_a_pad_without_an_embedding_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    count = save_tokenizer(folder)
    save_model(folder, "gpt2", vocab_size=count)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<a new one>"})
    tokenizer.save_pretrained(folder)
    refused(
        causal(tmp_path, {"pretrained": str(folder)}), "workload.model", f"ids up to {count}, pads"
    )


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = trained_folder(tmp_path / "model", "gpt2")
    save_tokenizer(tmp_path / "reversed", reversed("abcdefghijklmnopqrstuvwxyz"))
    save_tokenizer(tmp_path / "shorter", "abcdefghijklmnop")
    task = causal(tmp_path, {"pretrained": folder}, data={"tokenizer": str(tmp_path / "reversed")})
    refused(task, "workload.data.tokenizer", "26 of the 31 tokens that it shares")
    require_trainable(
        causal(tmp_path, {"pretrained": folder}, data={"tokenizer": str(tmp_path / "shorter")}), 0
    )


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "roberta", "opt", "llama"])
def test_more_tokens_than_positions_are_refused(architecture: str, tmp_path: Path) -> None:
    folder = trained_folder(tmp_path / "model", architecture, max_position_embeddings=24)
    model = {"pretrained": folder}
    make = causal if architecture != "bert" else classifying
    task: Any = make(tmp_path, model)
    long = task.token_model.data.model_copy(update={"max_length": 600})
    task = replace(task, token_model=replace(task.token_model, data=long))
    refused(task, "workload.data.max_length", "600 is more than the model's 24 positions")


def test_positions_that_an_architecture_reserves_are_counted(tmp_path: Path) -> None:
    folder = trained_folder(
        tmp_path / "model", "roberta", max_position_embeddings=24, pad_token_id=1
    )
    for length in (22, 23, 24):
        task: Any = classifying(tmp_path, {"pretrained": folder}, max_length=length)
        if length == 22:
            require_trainable(task, 0)
        else:
            refused(task, "workload.data.max_length", f"{length} is more than .* at most 22")


def test_positions_of_a_model_from_scratch_may_be_too_few(tmp_path: Path) -> None:
    model = {**TINY_LLAMA, "architecture": "gpt2", "config": {"n_positions": 8}}
    refused(causal(tmp_path, model), "workload.data.max_length", "16 is more than the model's 8")


@needs_peft
@pytest.mark.parametrize(
    ("lora", "ranks", "path"),
    [
        ({"rank": 16}, None, "workload.model.lora.rank"),
        ({"rank": 500}, {}, None),
        ({"rank": 4}, {"nuisance.lora_rank": 64}, "nuisance.lora_rank"),
        ({"rank": 4}, {"scientific.lora_rank": 16}, "scientific.lora_rank"),
        ({"rank": 15}, None, None),
    ],
)
def test_a_rank_as_large_as_a_matrix_is_refused(
    lora: Any, ranks: Any, path: str | None, tmp_path: Path
) -> None:
    folder = trained_folder(tmp_path / "model", "gpt2")
    task = causal(tmp_path, {"pretrained": folder, "lora": lora})
    if path is None:
        require_trainable(task, 0, lora_ranks=ranks)
    else:
        refused(task, path, "allowed: at most 15", lora_ranks=ranks)


@dataclass(frozen=True)
class Refused:
    """An architecture that is refused for a task family, and what the line says."""

    workload: Any
    architecture: str
    match: str


@pytest.mark.parametrize(
    "case",
    [
        Refused(pronunciation(), "gpt_neo", "gpt_neo refuses its options"),
        Refused(pronunciation(), "t5", "no t5 with a causal lm head"),
        Refused(pronunciation(), "vit", "no vit with a causal lm head"),
        Refused(pronunciation(), "emu3", "emu3 has no option hidden_size nor num_hidden_layers"),
        Refused(pronunciation(), "phi4_multimodal", "weights at these sizes"),
        Refused(part_of_speech(), "t5", "t5 cannot read the training data: .*<eos>"),
        Refused(part_of_speech(), "layoutlmv2", "requires the detectron2 library"),
        Refused(tagging(), "bros", "bros cannot read the training data"),
    ],
    ids=lambda case: case.architecture,
)
def test_architectures_that_do_not_fit_are_said_in_one_line(case: Refused) -> None:
    model = FromScratch(
        architecture=case.architecture, hidden_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    task: Any = prepare_task(case.workload, EVALUATION)
    task = replace(task, token_model=replace(task.token_model, spec=model))
    with pytest.raises(DataError, match=case.match) as raised:
        require_trainable(task, 0)
    assert raised.value.path.startswith("workload.model")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of the positions
def test_a_loss_that_is_no_number_is_refused() -> None:
    task: Any = prepare_task(spelling(generation=None), EVALUATION)
    model = FromScratch(
        architecture="pegasus_x", hidden_size=3, num_hidden_layers=1, num_attention_heads=1
    )
    task = replace(task, token_model=replace(task.token_model, spec=model))
    refused(task, "workload.model", "loss is nan before the first step")


def test_a_last_token_that_may_be_padding_is_refused() -> None:
    task: Any = prepare_task(part_of_speech(), EVALUATION)
    model = FromScratch(
        architecture="xlnet", hidden_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    task = replace(task, token_model=replace(task.token_model, spec=model))
    refused(task, "workload.model.architecture", "changes with the examples beside it")


@pytest.mark.parametrize("architecture", ["bart", "mbart", "blenderbot"])
@pytest.mark.parametrize("workload", [pronunciation(), spelling(generation=None)])
def test_encoder_decoders_have_the_size_asked_for_in_every_family(
    architecture: str, workload: Any
) -> None:
    model = FromScratch(
        architecture=architecture, hidden_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    task: Any = prepare_task(workload, EVALUATION)
    task = replace(task, token_model=replace(task.token_model, spec=model))
    require_trainable(task, 0)
    assert sum(p.numel() for p in task.new_model(0).parameters()) < 60_000


def test_a_small_model_is_tried_on_one_thread(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    task, seen = causal(tmp_path, TINY_LLAMA), set[int]()
    hook = register_module_forward_pre_hook(lambda *_: seen.add(torch.get_num_threads()))
    try:
        require_trainable(task, 0)
    finally:
        hook.remove()
    assert seen == {1}
    assert torch.get_num_threads() == 2
