"""Slurm's commands as files in PATH, which answer as they are told and write down what they were asked."""

from pathlib import Path

from ablate.execution.slurm.job_table import COLUMNS


def line(*cells: str) -> str:
    """-> of squeue's answer."""
    return "".join(cell.ljust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True)) + "\n"


HEADER = line("JOBID", "STATE", "RESTART_COUNT", "EXEC_HOST", "REASON", "COMMENT")


class Bin:
    """Commands: what each prints lies in a file of its name, what it was asked in NAME.calls, a code in NAME.code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("sbatch", "squeue", "scancel", "scontrol", "sacct"):
            (folder / name).write_text(
                f'#!/bin/bash\necho "$@" >> {folder}/{name}.calls\n[ {name} = sbatch ] && cat >> {folder}/scripts\n'
                f"cat {folder}/{name}.out 2>/dev/null; cat {folder}/{name}.err >&2 2>/dev/null\n"
                f"exit $(cat {folder}/{name}.code 2>/dev/null || echo 0)\n"
            )
            (folder / name).chmod(0o755)

    def says(self, name: str, out: str = "", problem: str = "", code: int = 0) -> None:
        for ending, text in {"out": out, "err": problem, "code": str(code)}.items():
            (self.folder / f"{name}.{ending}").write_text(text)

    def calls(self, name: str) -> list[str]:
        path = self.folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []
