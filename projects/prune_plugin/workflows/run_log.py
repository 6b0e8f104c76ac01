"""The log of a pruning: ``<output folder>/<timestamp>/`` with the log and the config, as MMEngine has it.

Nothing may be written before all input is known to be good, so what is logged until then waits.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

from mmengine import dist
from mmengine.config import Config
from mmengine.logging import MMLogger

from ..common.config_errors import describe_config_error
from ..common.errors import UserError

#: Log lines that wait at most.
WAITING = 10_000
FORMAT = '%(asctime)s - %(name)s - %(levelname)s - %(message)s'


class Waiting(MemoryHandler):
    """Keeps log lines until there is a file.

    Attributes:
        folder: Where the file lies, once there is one.
    """

    folder: Path | None = None

    def shouldFlush(self, record: logging.LogRecord) -> bool:
        """Never by itself; the first lines are dropped at some point."""
        if self.target is not None:
            self.buffer.clear()  # the file gets its lines directly
        del self.buffer[:-WAITING]
        return False


@contextmanager
def waiting_log() -> Iterator[None]:
    """Collect what is logged while the body runs, for :func:`open_log`."""
    if not MMLogger.check_instance_created('mmengine'):
        MMLogger.get_instance('mmengine', log_level='INFO')
    logger = MMLogger.get_current_instance()
    handler = Waiting(WAITING)
    handler.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        for own in (handler, *([handler.target] if handler.target else [])):
            logger.removeHandler(own)
            own.close()


@contextmanager
def nothing_left_of_errors() -> Iterator[None]:
    """Remove the log's folder where the body ends with a sentence to the user, as it left nothing else."""
    try:
        yield
    except (UserError, OSError, KeyError, TypeError) as error:
        if not isinstance(error, UserError | OSError) and describe_config_error(error) is None:
            raise
        handlers = MMLogger.get_current_instance().handlers
        for folder in [h.folder for h in handlers if isinstance(h, Waiting) and h.folder]:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def open_log(folder: Path, cfg: Config) -> None:
    """Write the log of this run, from its beginning, and its config into a new folder; on rank 0.

    Outside of :func:`waiting_log` it does nothing.
    """
    logger = MMLogger.get_current_instance()
    handler = next((h for h in logger.handlers if isinstance(h, Waiting)), None)
    if handler is None or handler.target is not None or not dist.is_main_process():
        return
    stamp = time.strftime('%Y%m%d_%H%M%S')
    place = folder / stamp
    place.mkdir(parents=True, exist_ok=True)
    handler.folder = place
    name = Path(cfg.filename).name if cfg.filename else 'config.py'
    cfg.dump(place / f'{Path(name).stem}.py')
    target = logging.FileHandler(place / f'{stamp}.log', encoding='utf-8')
    target.setLevel(logging.INFO)
    target.setFormatter(logging.Formatter(FORMAT, '%Y/%m/%d %H:%M:%S'))
    handler.setTarget(target)
    handler.flush()
    logger.addHandler(target)
