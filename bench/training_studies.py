#!/usr/bin/env python3
"""Trains small models that differ in one thing, on the data of the built-in model's recipe, and prints what came out.

    training_studies.py FOLDER TOASTER optimizers [--plot FILE.svg]
    training_studies.py FOLDER TOASTER quantisation [--after STAGE]

FOLDER is one that recipes/builtin/run.sh has put data and tokenizer into. Runs go to FOLDER/studies; those that are finished are not
repeated, and one that was interrupted goes on, so the same command prints the same again.

optimizers: Muon and AdamW for the matrices. Both get the peak learning rate that is best for seed 0, then two more seeds.
quantisation: the last quarter of the steps quantised as served; the same number of steps in BF16; and that model rounded afterwards.
With --after, not from nothing but from what that stage of the recipe came to, on its data.
"""
import argparse
import json
import pathlib
import subprocess
import sys

STEPS, SEEDS = 120, (0, 1, 2)
RATES = {"muon": (0.005, 0.01, 0.02), "adamw": (0.002, 0.004, 0.008, 0.016)}


class Study:
    def __init__(self, folder, toaster, after=None):
        self.folder, self.toaster = folder, toaster
        self.prefix = f"{after}_" if after else ""
        self.base = json.loads((folder / f"{after or 'base'}.json").read_text())
        if after:
            self.base["init"] = f"{after}/model"

    def run(self, name, **changes):
        """Trains if that is not done yet; the log, as objects by step."""
        name = self.prefix + name
        output = self.folder / "studies" / name
        if not (output / "model" / "config.json").exists():
            output.parent.mkdir(exist_ok=True)
            config = dict(self.base, output=f"studies/{name}", checkpoint_steps=20, validation_steps=STEPS if self.prefix else 10,
                          validation_tokens=32768, **changes)
            if "init" in config:
                config.pop("model", None), config.pop("tokenizer", None)
            path = self.folder / f"study_{name}.json"
            path.write_text(json.dumps(config, indent=1))
            subprocess.run([self.toaster, "train", path.name], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)
        with open(output / "log.jsonl", encoding="utf-8") as lines:
            return {entry["step"]: entry for entry in map(json.loads, lines)}

    def optimised(self, optimizer, rate, seed, stages=None, name=None):
        return self.run(name or f"{optimizer}_{rate}_{seed}", seed=seed, optimizer={"matrices": optimizer},
                        learning_rate={"peak": rate, "final": rate / 10, "warmup_steps": 10, "decay_steps": STEPS // 2},
                        stages=stages or [{"steps": STEPS, "quantised": False}])

    def best_rate(self, optimizer):
        return min(RATES[optimizer], key=lambda rate: self.optimised(optimizer, rate, 0)[STEPS]["validation"])


def validation(log):
    return {step: entry["validation"] for step, entry in sorted(log.items()) if "validation" in entry}


def optimizers(study, plot):
    for optimizer, rates in RATES.items():
        for rate in rates:
            print(f"{optimizer} {rate} seed 0: {study.optimised(optimizer, rate, 0)[STEPS]['validation']:.3f}")
    best = {optimizer: study.best_rate(optimizer) for optimizer in RATES}
    curves = {(optimizer, seed): validation(study.optimised(optimizer, best[optimizer], seed))
              for optimizer in best for seed in SEEDS}
    for seed in SEEDS:
        goal = curves["adamw", seed][STEPS]
        step = min(step for step, loss in curves["muon", seed].items() if loss <= goal)
        print(f"seed {seed}: AdamW {goal:.3f} after {STEPS} steps; Muon after {step}, "
              f"and {curves['muon', seed][STEPS]:.3f} after {STEPS}")
    if plot:
        runs = [study.folder / "studies" / f"{study.prefix}{optimizer}_{best[optimizer]}_{seed}" for optimizer, seed in curves]
        subprocess.run([study.toaster, "plot", *runs, "-o", plot], check=True)


def quantisation(study):
    rate = RATES["muon"][0] if study.prefix else study.best_rate("muon")
    print("| seed | BF16 | quantised for the last quarter | BF16, rounded afterwards |")
    print("|---|---|---|---|")
    for seed in SEEDS:
        plain = study.optimised("muon", rate, seed)[STEPS]["validation"]
        quarter = [{"steps": STEPS - STEPS // 4, "quantised": False}, {"steps": STEPS // 4, "quantised": True}]
        aware = study.optimised("muon", rate, seed, quarter, f"aware_{rate}_{seed}")[STEPS]["validation"]
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
    parser.add_argument("--after", metavar="STAGE", help="of the recipe, for example keys")
    arguments = parser.parse_args()
    if not (arguments.folder / "tokenizer").exists():
        sys.exit(f"{arguments.folder} has no tokenizer; run recipes/builtin/run.sh {arguments.folder} first")
    study = Study(arguments.folder.resolve(), arguments.toaster.resolve(), arguments.after)
    if arguments.study == "optimizers":
        optimizers(study, arguments.plot)
    else:
        quantisation(study)


if __name__ == "__main__":
    main()
