"""Load balance of threads."""

import torch


def shared_evenly(items: int) -> bool:
    """Return whether parallelising over whole items, such as images, keeps all threads busy most of the time.

    Example:
        >>> threads = torch.get_num_threads()
        >>> shared_evenly(threads), shared_evenly(1000 * threads + 1)
        (True, True)
    """
    threads = torch.get_num_threads()
    return items >= 0.8 * threads * -(-items // threads)
