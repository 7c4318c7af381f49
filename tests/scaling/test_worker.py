"""What a worker has of the process that began the merge."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from mergekit.options import MergeOptions

from mergekit_spectral.scaling.worker import Job, Worker


def new_job(folder: Path) -> Job:
    return Job("", MergeOptions(), seed=0, threads=1, here=folder, folder=folder)


def test_logs_what_the_first_process_logs(tmp_path: Path):
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quiet = new_job(tmp_path)
    finally:
        logging.disable(before)
    threads = torch.get_num_threads()
    for job, level in ((quiet, logging.WARNING), (new_job(tmp_path), before)):
        with Worker(job):
            assert logging.root.manager.disable == level
            assert torch.get_num_threads() == 1
        assert logging.root.manager.disable == before
        assert torch.get_num_threads() == threads
