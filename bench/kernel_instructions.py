#!/usr/bin/env python3
"""Counts the instructions of each kernel under callgrind and compares them with the recorded ones.

    bench/kernel_instructions.py PROGRAM            fails if a kernel takes 1 % more than recorded
    bench/kernel_instructions.py PROGRAM --record   writes bench/kernel_instructions.json anew

Counts depend on the compiler: those recorded are of Debian 12's GCC, release build.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

RECORDED = pathlib.Path(__file__).with_suffix(".json")
ALLOWED = 1.01


def instructions(program, table, kernel):
    with tempfile.TemporaryDirectory() as directory:
        run = subprocess.run(
            ["valgrind", "--tool=callgrind", "--toggle-collect=toaster::kernels::CountedCall*",
             f"--callgrind-out-file={directory}/out", program, table, kernel],
            capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    found = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode != 0 or not found:
        sys.exit(f"{table} {kernel}: {run.stderr[-2000:]}")
    return int(found.group(1))


def main():
    arguments = [a for a in sys.argv[1:] if a != "--record"]
    record = len(arguments) + 1 < len(sys.argv)
    if len(arguments) != 1:
        sys.exit(__doc__)
    program = arguments[0]
    listed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    counts = {line: instructions(program, *line.split()) for line in listed.splitlines()}
    if record:
        RECORDED.write_text(json.dumps(counts, indent=1) + "\n")
        return
    recorded = json.loads(RECORDED.read_text())
    worse = []
    for name, count in counts.items():
        before = recorded.get(name)
        change = "not recorded" if before is None else f"{count / before - 1:+.2%}"
        print(f"{name:40} {count:12,d}  {change}")
        if before is None or count > before * ALLOWED:
            worse.append(name)
    worse += [name for name in recorded if name not in counts]
    if worse:
        sys.exit("more instructions than recorded, or not comparable: " + ", ".join(worse))


main()
