#!/usr/bin/env python3
"""Trains small models that differ in one thing, on the data of the built-in model's recipe, and prints what came out.

    training_studies.py FOLDER TOASTER optimizers [--plot FILE.svg]
    training_studies.py FOLDER TOASTER quantisation [--after STAGE | --long]

FOLDER is one that recipes/builtin/run.sh has put data and tokenizer into. Runs go to FOLDER/studies; those that are finished are not
repeated, and one that was interrupted goes on, so the same command prints the same again.

optimizers: Muon and AdamW for the matrices. Both get the peak learning rate that is best for seed 0, then two more seeds.
quantisation: the last quarter of the steps quantised as served; the same number of steps in BF16; and that model rounded afterwards.
With --after, not from nothing but from what that stage of the recipe came to, on its data. With --long, a smaller model that first learns
from 4,000 steps on the Bible, until rounding costs something; then 1,500 more at a low learning rate, all quantised or all in BF16.
"""
import argparse
import json
import pathlib
import subprocess
import sys

SEEDS = (0, 1, 2)
RATES = {"muon": (0.005, 0.01, 0.02), "adamw": (0.002, 0.004, 0.008, 0.016)}


# What --long changes in the recipe's model: two layers, two experts of which one is used, few words, no draft block. Many tokens for
# each weight are what makes rounding cost something, so the model is small.
SMALL_MODEL = {"num_hidden_layers": 2, "num_attention_heads": 2, "n_routed_experts": 2, "num_experts_per_tok": 1, "index_n_heads": 2,
               "compress_ratios": [4, 32], "num_nextn_predict_layers": 0, "vocab_size": 512}
LONG_TOKENIZER = "study_long_tokenizer"


class Study:
    """Configurations and runs of one kind: its steps, how many of them are quantised, how often they are validated, and the learning
    rate around its peak."""

    def __init__(self, folder, toaster, after=None, long=False):
        self.folder, self.toaster = folder, toaster
        self.prefix = f"{after}_" if after else "long_" if long else ""
        self.base = json.loads((folder / f"{after or 'base'}.json").read_text())
        self.steps, self.quantised_steps = 120, 30
        self.validation_steps, self.validation_tokens = 120 if after else 10, 32768
        self.rate, self.final_share, self.warmup_steps, self.decay_steps = None, 0.1, 10, 60
        if after:
            self.base["init"] = f"{after}/model"
            self.rate = RATES["muon"][0]
        self.long = long
        if long:
            self.rate, self.final_share, self.warmup_steps, self.decay_steps = 0.002, 0.05, 20, 1400
            self.steps, self.quantised_steps = 1500, 1500
            self.validation_steps, self.validation_tokens = 500, 200000
            if not (folder / LONG_TOKENIZER).exists():
                subprocess.run([toaster, "train-tokenizer", "data/base/bible.jsonl", "-o", LONG_TOKENIZER, "--vocab-size", "512"],
                               cwd=folder, check=True)
            model = json.loads((folder / self.base["model"]).read_text())
            (folder / "study_long_config.json").write_text(json.dumps(model | SMALL_MODEL, indent=1))
            self.base |= {"model": "study_long_config.json", "tokenizer": LONG_TOKENIZER, "data": ["data/base/bible.jsonl"],
                          "validation_share": 0.1, "sequence_tokens": 512, "batch_tokens": 2048}

    def run(self, name, **changes):
        """Trains if that is not done yet; the log, as objects by step."""
        name = self.prefix + name
        output = self.folder / "studies" / name
        if not (output / "model" / "config.json").exists():
            output.parent.mkdir(exist_ok=True)
            config = self.base | {"output": f"studies/{name}", "checkpoint_steps": 50, "validation_steps": self.validation_steps,
                                  "validation_tokens": self.validation_tokens} | changes
            if "init" in config:
                config.pop("model", None), config.pop("tokenizer", None)
            path = self.folder / f"study_{name}.json"
            path.write_text(json.dumps(config, indent=1))
            subprocess.run([self.toaster, "train", path.name], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)
        with open(output / "log.jsonl", encoding="utf-8") as lines:
            return {entry["step"]: entry for entry in map(json.loads, lines)}

    def optimised(self, optimizer, rate, seed, stages=None, name=None):
        start = self.trained_for_long(seed) if self.long else {}
        return self.run(name or f"{optimizer}_{rate}_{seed}", seed=seed, optimizer={"matrices": optimizer},
                        learning_rate={"peak": rate, "final": rate * self.final_share, "warmup_steps": self.warmup_steps,
                                       "decay_steps": self.decay_steps},
                        stages=stages or [{"steps": self.steps, "quantised": False}], **start)

    def trained_for_long(self, seed):
        """Where --long goes on: after 4,000 steps in BF16."""
        self.run(f"first_{seed}", seed=seed, stages=[{"steps": 4000, "quantised": False}], validation_steps=1000,
                 learning_rate={"peak": 0.01, "final": 0.0003, "warmup_steps": 20, "decay_steps": 2400})
        return {"init": f"studies/{self.prefix}first_{seed}/model"}

    def best_rate(self, optimizer):
        return min(RATES[optimizer], key=lambda rate: self.optimised(optimizer, rate, 0)[self.steps]["validation"])


def validation(log):
    return {step: entry["validation"] for step, entry in sorted(log.items()) if "validation" in entry}


def optimizers(study, plot):
    for optimizer, rates in RATES.items():
        for rate in rates:
            print(f"{optimizer} {rate} seed 0: {study.optimised(optimizer, rate, 0)[study.steps]['validation']:.3f}")
    best = {optimizer: study.best_rate(optimizer) for optimizer in RATES}
    curves = {(optimizer, seed): validation(study.optimised(optimizer, best[optimizer], seed))
              for optimizer in best for seed in SEEDS}
    for seed in SEEDS:
        goal = curves["adamw", seed][study.steps]
        step = min(step for step, loss in curves["muon", seed].items() if loss <= goal)
        print(f"seed {seed}: AdamW {goal:.3f} after {study.steps} steps; Muon after {step}, "
              f"and {curves['muon', seed][study.steps]:.3f} after {study.steps}")
    if plot:
        runs = [study.folder / "studies" / f"{study.prefix}{optimizer}_{best[optimizer]}_{seed}" for optimizer, seed in curves]
        subprocess.run([study.toaster, "plot", *runs, "-o", plot], check=True)


def quantisation(study):
    rate = study.rate or study.best_rate("muon")
    print(f"| seed | BF16 | quantised for the last {study.quantised_steps} steps | BF16, rounded afterwards |")
    print("|---|---|---|---|")
    for seed in SEEDS:
        plain = study.optimised("muon", rate, seed)[study.steps]["validation"]
        last = [{"steps": study.quantised_steps, "quantised": True}]
        if study.steps > study.quantised_steps:
            last = [{"steps": study.steps - study.quantised_steps, "quantised": False}] + last
        aware = study.optimised("muon", rate, seed, last, f"aware_{rate}_{seed}")[study.steps]["validation"]
        # One step that changes nothing, computed with rounded weights.
        rounded = study.run(f"rounded_{rate}_{seed}", seed=seed, init=f"studies/{study.prefix}muon_{rate}_{seed}/model",
                            learning_rate={"peak": 1e-30}, stages=[{"steps": 1, "quantised": True}])[1]["validation"]
        print(f"| {seed} | {plain:.4f} | {aware:.4f} ({100 * (aware / plain - 1):+.2f} %) "
              f"| {rounded:.4f} ({100 * (rounded / plain - 1):+.2f} %) |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("toaster", type=pathlib.Path)
    parser.add_argument("study", choices=["optimizers", "quantisation"])
    parser.add_argument("--plot", type=pathlib.Path, help="draw the runs")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--after", metavar="STAGE", help="of the recipe, for example keys")
    start.add_argument("--long", action="store_true", help="a smaller model, trained for 4,000 steps before")
    arguments = parser.parse_args()
    if not (arguments.folder / "tokenizer").exists():
        sys.exit(f"{arguments.folder} has no tokenizer; run recipes/builtin/run.sh {arguments.folder} first")
    study = Study(arguments.folder.resolve(), arguments.toaster.resolve(), arguments.after, arguments.long)
    if arguments.study == "optimizers":
        optimizers(study, arguments.plot)
    else:
        quantisation(study)


if __name__ == "__main__":
    main()
