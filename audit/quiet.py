"""Other libraries' progress bars, off while ours is on the screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def no_loading_bars() -> Iterator[None]:
    """transformers shows no bar while it loads or saves weights; afterwards it is as it was."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def quiet_harness() -> Iterator[None]:
    """lm-evaluation-harness and what it loads data with say nothing, and what they draw at random is always the same.

    Standard output may be one JSON document, and standard error holds our own progress. The states of the global
    generators are as before when this ends: the harness sets its own seeds, here to those its command line has.
    """
    import io
    import logging
    import random
    import warnings
    from functools import partial

    import datasets
    import lm_eval.api.task
    import numpy as np

    names = "lm_eval lm-eval datasets huggingface_hub transformers fsspec filelock evaluate httpx urllib3"
    loggers = [logging.getLogger(name) for name in names.split()]
    levels = [logger.level for logger in loggers]
    shown = datasets.utils.logging.is_progress_bar_enabled()
    drawn, drawn_numpy = random.getstate(), np.random.get_state()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    datasets.utils.logging.disable_progress_bar()
    random.seed(0)
    np.random.seed(1234)
    bar = lm_eval.api.task.tqdm
    lm_eval.api.task.tqdm = partial(bar, disable=True)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        lm_eval.api.task.tqdm = bar
        random.setstate(drawn)
        np.random.set_state(drawn_numpy)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown:
            datasets.utils.logging.enable_progress_bar()
