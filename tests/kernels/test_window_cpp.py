"""Compiled window attention against the reference in fp64: outputs, gradients, unsupported inputs."""

from threading import Thread
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from closeness import CLOSE, off, with_threads
from vitrail.grid import Grid
from vitrail.kernels.window import reference, window
from vitrail.kernels.window.cpp import attend, unsupported_reason
from vitrail.parts.token_mixers.window_attention import WindowAttention


class Case(NamedTuple):
    """Operands of one call; those that learn are first."""

    qkv: Tensor
    padding: Tensor | None
    bias: Tensor | None
    mask_index: Tensor
    token_index: Tensor
    heads: int


def case(
    dtype: torch.dtype, tokens: int, groups: int, n: int, heads: int, width: int, masks: int, batch: int = 2
) -> Case:
    """Draw operands; tokens sit anywhere, the places that are left are padding, no masks are no bias."""
    token_index = torch.full((groups * n,), -1)
    token_index[torch.randperm(groups * n)[:tokens]] = torch.arange(tokens)
    channels = 3 * heads * width
    return Case(
        torch.randn(batch, tokens, channels).to(dtype).requires_grad_(),
        torch.randn(channels).to(dtype).requires_grad_() if tokens < groups * n else None,
        torch.randn(masks, heads, n, n).requires_grad_() if masks else None,
        torch.randint(max(masks, 1), (groups,)),
        token_index.view(groups, n),
        heads,
    )


def learning(c: Case) -> list[Tensor]:
    return [x for x in c[:3] if isinstance(x, Tensor)]


def twin(c: Case) -> Case:
    """Return the same operands in fp64."""
    return Case(*(x if x is None else x.detach().double().requires_grad_() for x in c[:3]), *c[3:])


@pytest.mark.parametrize(
    ("tokens", "groups", "n", "heads", "width", "masks"),
    [
        (98, 2, 49, 3, 32, 1),  # Swin's windows
        (90, 2, 49, 2, 32, 2),  # with padding, and of two masks
        (16, 1, 16, 2, 8, 0),  # whole vectors and no bias
        (9, 3, 4, 2, 8, 2),
        (31, 4, 9, 2, 20, 3),  # heads that are no whole vectors
        (65, 1, 65, 2, 80, 1),  # more keys and wider heads than a panel
        (5, 5, 1, 1, 2, 0),  # everyone alone
    ],
)
def test_outputs_and_gradients_are_the_reference_s(dtype, tokens, groups, n, heads, width, masks):
    given = case(dtype, tokens, groups, n, heads, width, masks)
    exact = twin(given)
    assert unsupported_reason(*given) is None
    got, want = attend(*given), reference(*exact)
    assert off(got, want) < CLOSE[dtype]
    into = torch.randn_like(got)
    gradients = torch.autograd.grad(got, learning(given), into)
    expected = torch.autograd.grad(want, learning(exact), into.double())
    for value, operand, exactly in zip(gradients, learning(given), expected, strict=True):
        assert value.dtype == operand.dtype
        scale = max(exactly.norm().item(), 1e-6)  # a token alone in its group: scores change nothing
        assert (value.double() - exactly).norm() / scale < CLOSE[dtype]


def test_masked_keys_have_no_influence_and_no_gradient(dtype):
    given = case(dtype, 18, 2, 9, 2, 8, 1)
    hidden = torch.zeros(1, 2, 9, 9)
    hidden[..., 3:] = -torch.inf
    bias = hidden.requires_grad_()
    y = attend(given.qkv, None, bias, given.mask_index, given.token_index, 2)
    seen = given.token_index[:, :3].flatten()
    changed = given.qkv.detach().clone()
    unseen = torch.ones(18, dtype=torch.bool)
    unseen[seen] = False
    changed[:, unseen, 16:] += 5  # keys and values of those whom nobody sees
    assert torch.equal(attend(changed, None, bias, given.mask_index, given.token_index, 2), y)
    into_qkv, into_bias = torch.autograd.grad(y, [given.qkv, bias], torch.randn_like(y))
    assert not into_qkv[:, unseen, 16:].any() and not into_bias[..., 3:].any() and into_bias[..., :3].any()


def test_one_addend_for_all_heads_gathers_their_gradients():
    given = case(torch.float32, 18, 2, 9, 3, 8, 0)
    bias = torch.randn(2, 1, 9, 9).requires_grad_()
    into = torch.randn(2, 18, 24)
    (got,) = torch.autograd.grad(attend(given.qkv, None, bias, given.mask_index, given.token_index, 3), [bias], into)
    (want,) = torch.autograd.grad(
        reference(given.qkv, None, bias, given.mask_index, given.token_index, 3), [bias], into
    )
    torch.testing.assert_close(got, want)


def test_runs_and_threads_do_not_change_a_bit(dtype):
    given = case(dtype, 500, 12, 49, 2, 16, 2, batch=3)
    into = torch.randn(3, 500, 32).to(dtype)

    def run() -> list[Tensor]:
        y = attend(*given)
        return [y, *torch.autograd.grad(y, learning(given), into)]

    alone, again, together = run(), run(), with_threads(run)
    for results in (again, together):
        assert all(torch.equal(a, b) for a, b in zip(alone, results, strict=True))


def test_twice_in_one_graph_adds_up():
    given = case(torch.float32, 30, 4, 9, 2, 8, 2)
    once = torch.autograd.grad(attend(*given).sum(), learning(given))
    twice = torch.autograd.grad((attend(*given) + attend(*given)).sum(), learning(given))
    for one, two in zip(once, twice, strict=True):
        torch.testing.assert_close(two, 2 * one)


@pytest.mark.parametrize("learns", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_trainable_inputs_get_gradients(learns):
    given = case(torch.float32, 30, 4, 9, 2, 8, 2)
    whole = torch.autograd.grad(attend(*given).square().sum(), learning(given))
    some = [x.detach().requires_grad_(wanted) for x, wanted in zip(given[:3], learns, strict=True)]  # pyright: ignore
    attend(*some, *given[3:]).square().sum().backward()
    for operand, wanted, want in zip(some, learns, whole, strict=True):
        assert torch.equal(operand.grad, want) if wanted else operand.grad is None


def test_unsupported_inputs_get_a_reason():
    given = case(torch.float32, 18, 2, 9, 2, 8, 1)
    assert "fp32 and bf16" in str(unsupported_reason(*twin(given)))
    assert "meta" in str(unsupported_reason(given.qkv.to("meta"), *given[1:]))
    odd = case(torch.bfloat16, 18, 2, 9, 2, 5, 0)
    assert "even head width" in str(unsupported_reason(*odd))
    assert torch.isfinite(window(*odd).float()).all()  # by another way


def test_a_mixer_trains_by_it_and_exports_and_transforms_by_others():
    mixer = WindowAttention(16, num_heads=2, window_size=4, shift=2)
    x, grid = torch.randn(2, 5 * 7, 16), Grid(5, 7)
    y = mixer(x, grid)
    assert "_AttendBackward" in history(y)
    program = torch.export.export(mixer, (x, grid))
    torch.testing.assert_close(program.module()(x, grid), y)
    assert not any("_Attend" in str(node.target) for node in program.graph.nodes)
    pull = torch.func.grad(lambda rows: mixer(rows, grid).sum())(x)
    (want,) = torch.autograd.grad(mixer(x.requires_grad_(), grid).sum(), [x])
    torch.testing.assert_close(pull, want)


def history(y: Tensor) -> list[str]:
    """List the names of the functions that an answer came through."""
    found, left = [], [y.grad_fn]
    while left:
        function = left.pop()
        if function is not None and function not in found:
            found.append(function)
            left += [parent for parent, _ in function.next_functions]
    return [type(function).__name__ for function in found]


def test_a_thread_that_never_computed_gives_the_same_gradients(dtype):
    # Threads keep zeros to read where no token sits; the first question of a new thread may not move them.
    c = case(dtype, 45, 2, 49, 4, 8, 2)
    want = torch.autograd.grad(attend(*c).float().square().sum(), learning(c))
    found: list[tuple[Tensor, ...]] = []
    for _ in range(8):
        y = attend(*c).float().square().sum()
        fresh = Thread(target=lambda y=y: found.append(mix_back(y, c)))
        fresh.start()
        fresh.join()
    assert len(found) == 8
    for gradients in found:
        assert all(map(torch.equal, gradients, want))


def mix_back(y: Tensor, c: Case) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, learning(c))
