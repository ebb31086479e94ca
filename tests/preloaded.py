"""What the server of tests/forked.py imports before it forks."""

import os

# Which Ray reads when it is imported, as scaling.runner.own_ray sets them before that.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

import datasets  # noqa: F401
import mlflow  # noqa: F401
import ray.train.torch
import ray.tune  # noqa: F401
import torch  # noqa: F401
from transformers import (  # noqa: F401
    BertForSequenceClassification,
    LlamaForCausalLM,
    T5ForConditionalGeneration,
)

import scaling.report
import scaling.runner.phases
import scaling.sinks
import scaling.training.loop  # noqa: F401
from scaling.tasks.prepare import prepare_task
from tests.read_once import read_builtin_data_once
from tests.recipes import EVALUATION, part_of_speech, pronunciation

read_builtin_data_once()
for workload in (pronunciation(), part_of_speech()):
    prepare_task(workload, EVALUATION)
