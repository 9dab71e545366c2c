"""Cells of a fabricated study with the very scores, choices and losses that a test wants."""

import json

import numpy as np


def commit_scores(study, cell, scores, *, higher_is_better=True, choices=None, clusters=None, finer=None):
    """Commits a cell's evaluation: `scores` is {task: {metric: one a question}}; `choices`: how many each has."""
    files, tasks = {}, {}
    for task, by_metric in scores.items():
        num = len(next(iter(by_metric.values())))
        questions = [
            {
                "doc_id": i,
                "doc_hash": f"{task}-{i}",
                "scores": {metric: float(values[i]) for metric, values in by_metric.items()},
                **({"loglikelihoods": [-1.0] * choices} if choices else {}),
                **({"cluster": f"source {clusters[i]}"} if clusters is not None else {}),
            }
            for i in range(num)
        ]
        files[f"out/samples/{task}.jsonl"] = "".join(json.dumps(one) + "\n" for one in questions).encode()
        means = {metric: {"value": float(np.mean(values)), "stderr": 0.01} for metric, values in by_metric.items()}
        is_better = dict.fromkeys(by_metric, higher_is_better)
        tasks[task] = {"version": 1, "n": num, "metrics": means, "higher_is_better": is_better}
    results = {"tasks": tasks, "lm_eval": "0.4.13", "dtype": "float32", "batch_size": 16, "limit": None}
    study.commit_files(cell.evaluate, files | {"out/results.json": json.dumps(results).encode()})


def commit_losses(study, cell, losses, *, class_losses=None, held_out=None):
    """Commits a cell's training with these losses, one a step."""
    class_losses = losses if class_losses is None else class_losses
    steps = [
        {"step": step, "loss": loss, "class_loss": class_loss, "tokens": 100}
        for step, (loss, class_loss) in enumerate(zip(losses, class_losses, strict=True), 1)
    ]
    files = {"metrics.jsonl": "".join(json.dumps(step) + "\n" for step in steps).encode()}
    if held_out is not None:
        files["out/holdout.json"] = json.dumps({"class_loss": held_out, "tokens": 1000}).encode()
    study.commit_files(cell.trained, files)
