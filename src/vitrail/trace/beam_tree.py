"""Beam search as a tree: the candidates of each step, those kept, finished and pruned, and the best path."""

from collections.abc import Callable, Sequence
from typing import Any

from vitrail.generation.beam import BeamCandidate


def beam_tree(
    steps: Sequence[Sequence[BeamCandidate]], best: Sequence[int], show: Callable[[int], str], start: str
) -> dict[str, Any]:
    """Return the tree as a JSON value.

    Args:
        steps: candidates of each step, best first.
        best: tokens of the best hypothesis.
        show: text of a token.
        start: text of the start token.

    Returns:
        `nodes`: of each step a list of nodes with `token`, `note` (log-probability so far), `parent` (number of the
        node in the step before), `kept` and `best`; the first step is the start token alone.
    """
    nodes: list[list[dict[str, Any]]] = [[{"token": start, "note": "", "parent": 0, "kept": True, "best": True}]]
    kept = [0]  # number of the node of each unfinished text, in the step before
    path = [0]  # number of the best path's node in each step
    for depth, step in enumerate(steps):
        row, going = [], []
        for number, each in enumerate(step):
            parent = kept[each.row]
            on_path = depth < len(best) and len(path) == depth + 1 and parent == path[-1] and each.token == best[depth]
            row.append(
                {
                    "token": show(each.token),
                    "note": f"{each.log_prob:.2f}" + (" end" if each.fate == "finished" else ""),
                    "parent": parent,
                    "kept": each.fate != "pruned",
                    "best": on_path and each.fate != "pruned",
                }
            )
            if each.fate == "kept":
                going.append(number)
        path += [i for i, node in enumerate(row) if node["best"]]
        nodes.append(row)
        kept = going
    return {"kind": "tree", "label": "dashed: pruned; the number is the log-probability so far", "nodes": nodes}
