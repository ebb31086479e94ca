"""What other tools call the fields of a study file, so that a key brought along is understood.

Names of the Hugging Face Trainer and datasets, Lightning, PyTorch, Weights & Biases sweeps and
Optuna, and common shorthand.
"""

# pyright: strict

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from scaling.optimizers.catalog import OPTIMIZERS

HYPERPARAMETER_SECTIONS: Final = ("fixed", "nuisance", "scientific")
"""Where a hyperparameter may stand."""


@dataclass(frozen=True)
class Meant:
    """The field that a name of another tool stands for.

    Attributes:
        path: Dotted path; of a hyperparameter, that under fixed.
        note: How ours differs: its unit, or the form of its value.
    """

    path: str
    note: str = ""

    def within(self, section: str) -> str:
        """The path in a section of the user's own, where the field is a hyperparameter."""
        return self.path.replace("fixed.", f"{section}.", 1)


_EXAMPLES_A_STEP = "examples per optimizer step of all workers together"
_EXAMPLES_A_FORWARD = "examples per worker per forward"
_ACCUMULATION = "accumulation follows: global_batch_size / (workers × micro_batch_size)"
_IN_EXAMPLES = "in examples; every_steps for steps"
_RATIO = "a share of the run's steps"
_GRID = "the values under nuisance, and sampler: grid"

_NAMES: Final[Mapping[Meant, str]] = {
    # learning rate and its schedule
    Meant("fixed.peak_lr"): (
        "learning_rate lr max_lr init_lr initial_lr peak_learning_rate eta step_size "
        "base_learning_rate learningrate"
    ),
    Meant("fixed.schedule", "constant, linear, cosine, inverse_sqrt or wsd"): (
        "lr_scheduler_type lr_scheduler scheduler lr_schedule schedule_type scheduler_name "
        "lr_decay_style decay_schedule learning_rate_schedule"
    ),
    Meant("fixed.warmup_steps"): (
        "warmup num_warmup_steps n_warmup warmup_iters lr_warmup_steps lr_warmup_iters"
    ),
    Meant("fixed.warmup_ratio", _RATIO): (
        "warmup_fraction warmup_proportion warmup_percent lr_warmup_fraction pct_start"
    ),
    Meant("fixed.warmup_examples", "in examples"): "warmup_epochs warmup_samples lr_warmup_samples",
    Meant("fixed.min_lr_ratio", "over peak_lr"): (
        "min_lr lr_end eta_min min_learning_rate final_lr min_lr_rate end_lr"
    ),
    Meant("fixed.decay_ratio", _RATIO): (
        "num_decay_steps decay_steps decay_fraction lr_decay_iters cooldown cooldown_fraction"
    ),
    # batch
    Meant("fixed.global_batch_size", _EXAMPLES_A_STEP): (
        "batch_size batchsize bs batch train_batch_size total_batch_size effective_batch_size "
        "batch_sizes minibatch_size mini_batch_size global_bs total_train_batch_size"
    ),
    Meant("resources.micro_batch_size", _EXAMPLES_A_FORWARD): (
        "per_device_train_batch_size per_device_eval_batch_size per_gpu_train_batch_size "
        "per_device_batch_size device_batch_size micro_batch micro_bs microbatch_size "
        "train_micro_batch_size_per_gpu eval_batch_size batch_size_per_device local_batch_size "
        "auto_find_batch_size auto_scale_batch_size"
    ),
    Meant("resources.micro_batch_size", _ACCUMULATION): (
        "gradient_accumulation_steps grad_accum_steps accumulate_grad_batches grad_accum "
        "gradient_accumulation accumulation_steps update_freq"
    ),
    # optimizer
    Meant("fixed.optimizer"): "optim opt optimizer_name optimizer_type algo",
    Meant("fixed.beta1"): "adam_beta1 beta_1 b1",
    Meant("fixed.beta2"): "adam_beta2 beta_2 b2",
    Meant("fixed.beta1", "and beta2, a number each"): "betas adam_betas",
    Meant("fixed.eps"): "adam_epsilon epsilon adam_eps optimizer_eps",
    Meant("fixed.weight_decay"): "wd weight_decay_rate l2 decoupled_weight_decay lambda",
    Meant("fixed.momentum"): "sgd_momentum",
    Meant("fixed.clip_norm"): (
        "max_grad_norm gradient_clip_val gradient_clip_norm grad_clip clip_grad clip_grad_norm "
        "max_norm gradient_clipping clip gradient_clip grad_clip_norm grad_norm_clip "
        "clip_gradient_norm"
    ),
    Meant("fixed.clip_value"): "clip_grad_value max_grad_value gradient_clip_value",
    Meant("fixed.clip_norm", "or clip_value"): "gradient_clip_algorithm",
    Meant("fixed.dropout"): (
        "dropout_rate hidden_dropout hidden_dropout_prob p_dropout attention_dropout "
        "resid_pdrop drop_rate"
    ),
    Meant("fixed.label_smoothing"): "label_smoothing_factor smoothing label_smooth",
    Meant("fixed.weight_average_half_life_examples", "in examples"): (
        "ema ema_decay ema_half_life swa polyak"
    ),
    # how long
    Meant("budget.epochs"): "num_train_epochs max_epochs num_epochs n_epochs epoch",
    Meant("budget.steps"): (
        "max_steps num_steps total_steps num_train_steps max_iters num_training_steps "
        "train_steps n_steps iterations training_steps train_iters"
    ),
    Meant("budget.tokens"): "max_tokens num_tokens total_tokens train_tokens",
    Meant("budget.examples"): "max_examples train_samples total_examples",
    Meant("budget.seconds", "in seconds"): "max_time max_seconds time_limit timeout",
    # evaluation
    Meant("evaluation.every_examples", _IN_EXAMPLES): (
        "eval_steps eval_interval val_check_interval evaluation_steps eval_freq eval_every "
        "evaluation_strategy eval_strategy check_val_every_n_epoch validation_interval "
        "eval_frequency"
    ),
    Meant("evaluation.num_examples", "in examples"): (
        "max_eval_samples eval_samples limit_val_batches eval_iters num_eval_examples"
    ),
    Meant("search.objective"): "metric_for_best_model",
    Meant("target.at_most", "per target"): "target_loss threshold",
    # search
    Meant("search.num_trials", "of all cells together"): (
        "n_trials num_samples run_cap n_iter trials max_trials num_runs count"
    ),
    Meant("search.round_size", "trials proposed at a time"): (
        "trials_per_round population_size generation_size batch_proposals"
    ),
    Meant("search.prior_peak_lr"): "prior_lr initial_params points_to_evaluate",
    Meant("search.stop", "by the expected regret"): "terminator stopper",
    Meant("search.sampler"): "method search_alg search_algorithm search_type algorithm",
    Meant("search.sampler", _GRID): "grid",
    Meant("search.trials_per_cell", "the product of the choices with sampler: grid"): "grid_size",
    Meant("search.early_stopping", "asha or median"): (
        "early_terminate pruner early_stop early_stopping_patience"
    ),
    Meant("nuisance"): "param_space search_space parameters sweep hparams hyperparameters space",
    Meant("nuisance.peak_lr.log_uniform", "[low, high]"): (
        "min max log_uniform_values loguniform q_log_uniform_values distribution low high"
    ),
    Meant("nuisance.peak_lr.choice"): "values categorical options",
    Meant("confirm.num_seeds"): "num_replicates n_seeds seeds replicates num_repeats",
    Meant("seed"): "random_seed random_state manual_seed data_seed rng_seed global_seed",
    # workload
    Meant("workload.model.pretrained"): (
        "model_name_or_path model_name pretrained_model_name_or_path checkpoint model_id "
        "base_model model_path from_pretrained"
    ),
    Meant("workload.model.architecture"): "model_type arch",
    Meant("workload.model.hidden_size"): "d_model n_embd dim embed_dim width hidden_dim emb_dim",
    Meant("workload.model.num_hidden_layers"): "num_layers n_layer n_layers depth layers",
    Meant("workload.model.num_attention_heads"): "num_heads n_head n_heads heads",
    Meant("workload.model.intermediate_size"): "d_ff ffn_dim n_inner ffn_hidden_size mlp_dim",
    Meant("workload.task"): "task_name problem_type",
    Meant("workload.data.source", "hub:NAME; files: {train: …} for files"): (
        "dataset_name dataset dataset_path data_path hub"
    ),
    Meant("workload.data.subset"): "dataset_config_name dataset_config config_name",
    Meant("workload.data.files.train"): "train_file data_files train_files data_file",
    Meant("workload.data.files.validation"): "validation_file eval_file val_file dev_file val dev",
    Meant("workload.data.files.test"): "test_file",
    Meant("workload.data.tokenizer"): "tokenizer_name tokenizer_path tokenizer_name_or_path",
    Meant("workload.data.max_length", "in tokens"): (
        "max_seq_length max_seq_len seq_length seq_len sequence_length block_size "
        "context_length max_position_embeddings max_source_length max_target_length "
        "model_max_length max_len n_ctx n_positions context_size"
    ),
    Meant("workload.data.num_train", "in rows"): (
        "max_train_samples num_train_examples train_size n_train"
    ),
    Meant("workload.data.num_validation", "in examples"): (
        "val_size validation_size validation_split_percentage n_val"
    ),
    Meant("workload.data.num_test", "in examples"): "test_size n_test",
    Meant("workload.data.text_column"): (
        "text_column_name text_field dataset_text_field input_column"
    ),
    Meant("workload.data.label_column"): "label_column_name label_field labels",
    Meant("workload.stride", "in tokens"): "doc_stride overlap",
    Meant("workload.packing"): "pack",
    Meant("workload.generation.num_beams"): "beam_size beams beam_width generation_num_beams",
    Meant("workload.generation.max_new_tokens", "in tokens"): "generation_max_length max_gen_len",
    Meant("workload.model.lora.rank"): "lora_r r lora_rank",
    Meant("workload.model.lora.alpha"): "lora_alpha",
    Meant("workload.model.lora.dropout"): "lora_dropout",
    Meant("workload.model.lora.target_modules"): "lora_target_modules",
    Meant("workload.model.lora"): "peft",
    # resources
    Meant("resources.precision", "fp32, bf16 or fp16"): (
        "fp16 bf16 mixed_precision amp half dtype torch_dtype fp32 tf32 use_amp"
    ),
    Meant("resources.num_workers", "and gpus_per_worker: 1 for a GPU each"): (
        "devices num_gpus n_gpu world_size num_processes num_devices nproc_per_node num_nodes "
        "gpus nnodes workers num_proc"
    ),
    Meant("resources.gpus_per_worker", "0 for CPUs, 1 for a GPU"): (
        "accelerator device use_gpu use_cuda no_cuda use_cpu"
    ),
    Meant("resources.cpus_per_worker", "and gpus_per_worker"): (
        "resources_per_trial cpus num_cpus resources_per_worker"
    ),
    Meant("resources.activation_checkpointing"): "gradient_checkpointing activation_checkpoint",
    Meant("resources.compile"): "torch_compile",
    Meant("resources.strategy", "zero1, zero2 or zero3"): "deepspeed zero_stage zero",
    Meant("resources.strategy", "ddp, fsdp, zero1, zero2, zero3 or tp"): (
        "distributed ddp parallelism distributed_backend"
    ),
    Meant("resources.strategy", "fsdp"): "fsdp",
    Meant("resources.max_slots"): "max_concurrent_trials n_jobs max_concurrent parallel_trials",
    # where things go
    Meant("storage", "of the state; --output for the report"): (
        "output_dir save_dir default_root_dir logging_dir log_dir dir checkpoint_dir "
        "storage_path local_dir"
    ),
    Meant("name"): "run_name experiment_name study_name project title",
    Meant("question"): "description notes goal hypothesis",
    Meant("checkpoints.every_seconds", "in seconds"): (
        "save_steps save_interval checkpoint_interval save_every save_strategy checkpoint_freq"
    ),
    Meant("checkpoints.keep"): "save_total_limit keep_last num_to_keep save_top_k",
}
"""Our fields, and what they are called elsewhere: in lower case with underscores."""

SYNONYMS: Final[Mapping[str, Meant]] = {
    name: meant for meant, names in _NAMES.items() for name in names.split()
}

_VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "optimizer": {name: " ".join(facts.other_names) for name, facts in OPTIMIZERS.items()},
    "schedule": {
        "constant": "constant_with_warmup none fixed",
        "linear": "linear_with_warmup polynomial linear_decay",
        "cosine": (
            "cosine_with_min_lr cosine_with_restarts cosine_annealing cosineannealinglr "
            "cosine_with_warmup"
        ),
        "wsd": "warmup_stable_decay trapezoidal",
        "inverse_sqrt": "rsqrt noam inverse_square_root",
    },
    "precision": {
        "fp32": "32 32-true float32 no full",
        "tf32": "tensorfloat32 tensorfloat-32 high",
        "bf16": "bf16-mixed bf16-true bfloat16",
        "fp16": "16 16-mixed 16-true float16 half",
    },
    "strategy": {
        "ddp": "ddp_spawn ddp_find_unused_parameters_true auto dp",
        "fsdp": "fsdp2 full_shard",
        "zero1": "deepspeed_stage_1",
        "zero2": "deepspeed_stage_2 deepspeed",
        "zero3": "deepspeed_stage_3",
        "tp": "tensor_parallel",
    },
    "sampler": {
        "surface": "gp gaussian_process bo botorch kriging",
        "tpe": "bayes bayesian hyperopt optuna",
        "qmc": "sobol quasi_random halton",
    },
    "task": {
        "causal_lm": (
            "clm language_modeling text_generation text-generation lm causal pretraining sft"
        ),
        "text_classification": (
            "classification sequence_classification text-classification glue sentiment"
        ),
        "token_classification": "ner token-classification pos tagging",
        "question_answering": "qa question-answering squad",
        "seq2seq": "translation summarization text2text text2text-generation",
        "noisy_quadratic": "nqm",
        "custom": "own user my_task pytorch torch module",
    },
}
"""By field: our values, and what they are called elsewhere."""


def meaning_of(key: str) -> Meant | None:
    """The field that another tool's name stands for; None where it is not known."""
    return SYNONYMS.get(key.strip().lower().replace("-", "_").replace(" ", "_"))


def value_meant(field: str, value: str) -> str | None:
    """Our word for a value of another tool; None where it is not known."""
    plain = value.strip().lower()
    known = _VALUES.get(field, {})
    return next((ours for ours, names in known.items() if plain in names.split()), None)
