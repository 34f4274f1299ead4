"""What a test does in a process of its own: be killed, run out of disk, or have its memory measured."""

import os
import resource
import traceback
from collections.abc import Callable


def in_a_child(do: Callable[[], None]) -> int:
    """The status that a forked process ends with: 0 if `do` returned."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            do()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def peak_memory() -> int:
    """Of this process so far, in KiB. A child begins with what it holds at its birth."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
