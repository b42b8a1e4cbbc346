"""How work is shared out among threads."""

import torch


def shared_evenly(items: int) -> bool:
    """Say whether threads that take whole items, such as pictures, are all busy most of the time.

    Example:
        >>> threads = torch.get_num_threads()
        >>> shared_evenly(threads), shared_evenly(1000 * threads + 1)
        (True, True)
    """
    threads = torch.get_num_threads()
    return items >= 0.8 * threads * -(-items // threads)
