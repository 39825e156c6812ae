"""Every key of a run, with its unit and range. A config file starts from here and changes some."""

import ml_collections
from ml_collections.config_dict import placeholder

ConfigDict = ml_collections.ConfigDict

# Tokens of an example at most where `data.seq_len` is None, if the position table has as many rows.
SEQ_LENS = {"pretraining": 128, "classification": 128, "question_answering": 384}


def default_config() -> ConfigDict:
    """A mini SIBERT trained by the recipe on text found on this machine.

    Example:
      >>> config = default_config()
      >>> config.model.width = 256
    """
    config = ConfigDict()
    config.seed = 0  # initial parameters, order of the examples, masks, dropout
    config.init_scale = 1.0  # > 0, multiplies the encoder's initial parameters
    config.task = _task()
    config.model = _model()
    config.data = _data()
    config.optim = _optim()
    config.train = _train()
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})  # devices; -1: all the others
    config.distributed = _distributed()
    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 1000  # steps between checkpoints; the last step has one too
    config.checkpoint.keep = 3  # newest checkpoints kept
    # Workdir to start the parameters from, with its encoder and vocabulary; "": fresh.
    config.checkpoint.init_from = ""
    return config


def finetuning_config(task_name: str) -> ConfigDict:
    """An encoder fine-tuned on labelled examples, as the paper does SIBERT: LAMB on everything.

    It counts epochs where `default_config` counts steps. The sizes under `model` are None: the
    encoder is that of `checkpoint.init_from`, or a fresh mini SIBERT. A size that is given must be
    that encoder's, too. See `resolve`.

    Args:
      task_name: "classification" or "question_answering".
    """
    from sibert_jax.model.config import INHERITED_KEYS  # loads JAX, which a config need not

    config = default_config()
    make_task, make_data = _FINETUNING_TASKS[task_name]
    config.task, config.data = make_task(), make_data()
    for key in INHERITED_KEYS:
        kind = type(config.model[key])
        del config.model[key]
        config.model[key] = placeholder(kind)
    config.optim.name = "lamb"
    config.optim.eta_lambda = 0.0
    config.optim.learning_rate = 1e-2  # experiments/finetuning_rates
    config.optim.weight_decay = 0.01
    config.optim.schedule = "linear"
    for optim in (config.optim, config.optim.head):
        del optim.warmup_steps
        optim.warmup_fraction = 0.1  # of all steps, linear from 0
    del config.train.num_steps
    config.train.num_epochs = 3.0  # passes over the training examples, > 0
    config.train.eval_batches = 0
    return config


def fresh_encoder(arch: str) -> ConfigDict:
    """The keys of `model` for an encoder that starts from nothing, where they are not given."""
    model = _model()
    model.arch = arch
    if arch == "bert":
        model.norm_eps = 1e-12
    return model


def _classification() -> ConfigDict:
    task = ConfigDict()
    task.name = "classification"
    task.dataset = "sst2"  # sst2 | cola | mrpc | qqp | stsb | mnli | qnli | rte | wnli
    task.strict = False  # stop at a row with too few or too many fields, instead of leaving it out
    task.loss_scale = 1.0  # > 0, multiplies the loss that is differentiated
    return task


def _finetuning_data() -> ConfigDict:
    data = ConfigDict()
    data.source = "files"  # files | tfds
    data.path = "glue/SST-2/train.tsv*"  # a file or glob; tfds: a prepared directory, as DIR:SPLIT
    data.valid_path = "glue/SST-2/dev.tsv*"  # likewise; "": hold out valid_fraction of path
    data.valid_fraction = 0.1  # in (0, 1)
    data.test_path = ""  # further sets to predict after the last step, comma-separated
    data.vocab = ""  # WordPiece vocabulary file; "": that of checkpoint.init_from
    # Tokens of an example at most, longer ones are cut; None: 128, or model.max_len if less.
    data.seq_len = placeholder(int)
    data.num_seq_lens = 12  # most lengths that batches are padded to; small sets get fewer
    return data


def _question_answering() -> ConfigDict:
    task = ConfigDict()
    task.name = "question_answering"
    task.unanswerable = False  # SQuAD 2.0: a question may have no answer
    task.max_query_len = 64  # tokens of a question; a longer one is cut off
    task.doc_stride = 128  # tokens from the start of one window over a long context to the next
    task.max_answer_len = 30  # tokens of the longest answer that is predicted
    task.n_best = 20  # candidates kept of each window and of each question
    task.null_threshold = 0.0  # no answer where the odds of none, a difference of logits, exceed it
    task.strict = False  # stop at an answer that is not in its context, instead of leaving it out
    task.loss_scale = 1.0  # > 0, multiplies the loss that is differentiated
    return task


def _question_answering_data() -> ConfigDict:
    data = ConfigDict()
    data.path = "squad/train-v1.1.json"  # SQuAD file: .json, .json.gz or .json.xz
    data.valid_path = "squad/dev-v1.1.json"  # likewise, to evaluate on
    data.test_path = ""  # further files to answer after the last step, comma-separated
    data.vocab = ""  # WordPiece vocabulary file; "": that of checkpoint.init_from
    data.cache_dir = "~/.cache/sibert_jax"  # windows of tokens
    # Tokens of a window at most, question included; None: 384, or model.max_len if less.
    data.seq_len = placeholder(int)
    data.num_seq_lens = 8  # most lengths that batches are padded to; small sets get fewer
    return data


_FINETUNING_TASKS = {
    "classification": (_classification, _finetuning_data),
    "question_answering": (_question_answering, _question_answering_data),
}


def _task() -> ConfigDict:
    task = ConfigDict()
    task.name = "pretraining"
    task.head = "untied"  # "untied" | "tied" (BERT) | "normalized" (scale invariant as well)
    task.unigram_prior = True  # the output bias starts from the log frequency of the tokens
    task.nsp = True  # sentence pairs and next-sentence loss; False: text packed without padding
    task.mask_rate = 0.15  # share of the tokens to predict, in (0, 1)
    task.whole_word = False  # mask all pieces of a word together
    task.loss_blocks = 1  # >= 1, masked positions meet the output table in so many parts
    task.loss_scale = 1.0  # > 0, multiplies the loss that is differentiated
    return task


def _model() -> ConfigDict:
    model = ConfigDict()
    model.arch = "sibert"  # sibert | sibert_qk_norm | sibert_sandwich | bert | reparametrized
    model.vocab_size = 8192  # WordPieces, rows of the token table
    model.max_len = 128  # longest sequence in tokens
    model.num_segments = 2  # 2: a segment table, for sentence pairs; 1: none
    model.width = 128  # features of the residual stream; a multiple of num_heads
    model.depth = 2  # layers
    model.num_heads = 2
    model.ffn_width = 512  # hidden features of the feed-forward branch
    model.qkv_bias = False  # biases on queries, keys, values (legal in SIBERT; always in BERT)
    model.branch_scaling = "depth"  # "none": x + f(x), the paper's | "depth": x + f(x)/√(2·depth)
    model.norm_eps = 1e-6  # >= 0; relative to mean(x²) in SIBERT, absolute in BERT
    model.dropout = 0.0  # rate in [0, 1)
    model.init_std = 0.02  # truncated normal
    model.dtype = "float32"  # of matrix products: float32 | bfloat16
    model.scan_layers = True  # scan over stacked layers: compiles one layer once
    model.remat = False  # recompute layers in the backward pass: less memory, more time
    # What remat keeps of a layer but its input: nothing_saveable |
    # dots_with_no_batch_dims_saveable (products with weights) | dots_saveable (all products)
    model.remat_policy = "nothing_saveable"
    model.attention_impl = "auto"  # auto | einsum | blockwise | pallas; docs/attention.md
    return model


def _data() -> ConfigDict:
    data = ConfigDict()
    data.source = "builtin"  # builtin | text | tfds
    data.path = ""  # text: files or globs, tfds: prepared directories; comma = another corpus
    data.layout = "auto"  # of text files: auto | paragraphs | wrapped; docs/text.md
    data.weights = ()  # share of each corpus; (): in proportion to size
    data.valid_path = ""  # held-out text; "": hold out valid_fraction of the documents
    data.valid_fraction = 0.02  # in (0, 1)
    data.tfds_split = "train"
    data.tfds_feature = "text"
    # WordPiece vocabulary file; "": that of checkpoint.init_from, else model.vocab_size pieces are
    # learnt once.
    data.vocab = ""
    data.vocab_train_bytes = 20_000_000  # text that a trained vocabulary sees
    data.cache_dir = "~/.cache/sibert_jax"  # tokens and trained vocabularies
    data.seq_len = SEQ_LENS["pretraining"]  # tokens of an example
    return data


def _optim() -> ConfigDict:
    optim = ConfigDict()
    optim.name = "scale_invariant_sgd"  # on the encoder; "adamw", "lamb": on everything
    optim.eta_lambda = 3.3e-3  # η·λ > 0: one gradient sets η so that training starts at equilibrium
    optim.learning_rate = 0.0  # peak η, where eta_lambda is 0
    optim.weight_decay = 0.0  # λ >= 0, multiplied by η_t in the update, where eta_lambda is 0
    optim.clip_factor = 4.0  # C of √(2Cλ/η)·‖x‖, > 1; inf: no clip
    optim.schedule = "cosine"  # constant | piecewise | linear | cosine | warmup_stable_decay
    optim.warmup_steps = 0  # linear from 0
    optim.b1 = 0.9  # adamw and lamb only, as the next three
    optim.b2 = 0.999
    optim.eps = 1e-6
    optim.max_grad_norm = 1.0  # global norm that the gradient is clipped to
    optim.head = ConfigDict()
    optim.head.name = "lamb"  # lamb | adamw | sgd | recipe (task.head = "normalized": one SGD)
    optim.head.learning_rate = 4e-3  # peak
    optim.head.weight_decay = 0.01  # on matrices, not on biases and gains
    optim.head.schedule = "linear"
    optim.head.warmup_steps = 0
    optim.head.b1 = 0.9
    optim.head.b2 = 0.999
    optim.head.eps = 1e-6
    return optim


def _train() -> ConfigDict:
    train = ConfigDict()
    train.num_steps = 1000  # updates
    train.extend = False  # a run may go on with another length, its schedules computed anew
    train.global_batch_size = 32  # examples of one update, over all devices
    train.microbatches = 1  # parts of a batch whose gradients are summed; divides the batch
    train.log_every_steps = 20  # window of the logged means
    train.eval_every_steps = 200  # 0: only at the end
    train.eval_batches = 16  # at most, of global_batch_size held-out examples; 0: all
    train.compilation_cache_dir = "~/.cache/sibert_jax/xla"  # "": no persistent cache
    # A step is bad when loss, gradient or update is not finite, or when the loss spikes.
    train.on_bad_step = "stop"  # stop | skip its update | rollback to a checkpoint, past its data
    train.spike_factor = float("inf")  # > 1, over the running mean of the loss; inf: no spikes
    train.max_skips_in_a_row = 10  # more of them stop the run; for "skip"
    train.max_rollbacks = 3  # in the whole run, one more stops it; for "rollback"
    train.replay_every_steps = 0  # recompute each such step and compare the bits; 0: never
    train.watchdog_secs = 1800.0  # a step without an end within this ends the run; 0: no watchdog
    return train


def _distributed() -> ConfigDict:
    distributed = ConfigDict()
    # single: one process | auto: as a TPU pod, SLURM or Open MPI says | explicit: by the next three
    distributed.start = "single"
    distributed.coordinator_address = ""  # host:port on which process 0 listens for the others
    distributed.num_processes = 1  # >= 1
    distributed.process_id = 0  # of this process, from 0; the one key that differs between them
    distributed.start_timeout_secs = 300  # seconds, >= 1: how long the first waits for the last
    distributed.heartbeat_secs = 20  # seconds, >= 2: a process silent for longer ends the others
    return distributed
