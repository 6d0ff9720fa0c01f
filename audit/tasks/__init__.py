"""Tasks: what is to be forgotten and kept. `load_task` reads one from a name, a folder, a file or the hub."""

from audit.tasks.load import bundled_names, load_task
from audit.tasks.model import Problem, Task

__all__ = ["Problem", "Task", "bundled_names", "load_task"]
