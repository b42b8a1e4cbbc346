"""Training: one loop, with checkpoints, logs and data parallelism.

Start at `loop.py` (the loop), then `trainer.py` (its state) and `train.py` (setup and final evaluation)::

    config.py              RunConfig: fields of every run, joined with those of a task; config_io.py reads files
    train.py               train(config, reporter, stop, command) -> Summary
    setup.py               config -> Trainer: data and model of the task, processes, optimizer
    wrapper.py             the module that DDP and FSDP wrap
    loop.py                fit(trainer), validate(trainer, loader); NonFiniteLoss
    trainer.py             Trainer: training state and bookkeeping
    schedule.py            Schedule (rate by share of the run), Steps and Seconds (length of a run)
    param_groups.py        parameter groups: layer-wise rates, decay, freezing
    ema.py                 moving average of the weights
    distributed.py         one process, DDP, FSDP2
    precision.py           bf16 or fp32
    checkpoint.py          training state: safetensors and JSON, atomic; sharded_checkpoint.py the tensors
    run_dir.py             the run folder; lock.py one run at a time; log.py metrics.jsonl, results.csv, TensorBoard
    resume.py              resuming a run, or starting it if that loses nothing
    signals.py             stop requests; reporters.py progress output
    probe.py               updates that are undone: batch_size.py, rate_finder.py, dry_run.py

A run folder holds `metrics.jsonl`, one object per line:
`{"kind": "step", "step", "epoch", "loss", "lr", "grad_norm"}` and
`{"kind": "epoch", "step", "epoch", "train_loss", "val_loss", <metrics>, "lr", "seconds", "best"}` with the metrics of
the task (`tasks/task.py`), null if one does not apply; `results.csv` has the epoch rows; `summary.json` the fields of
`train.Summary`. Loss, data and metrics belong to the task; this package depends on none.

Resuming is exact: with `epochs`, a run that was killed at any moment and resumed on the same machine, with the same
torch and number of threads, ends with the same weights bit for bit. With `minutes` it continues from the time spent so
far. With another number of processes each update has the same samples, and differs only by the order of sums. Under
FSDP2 each process writes its own shards, and any number of processes reads them.
"""
