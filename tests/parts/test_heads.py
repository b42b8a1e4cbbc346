"""Heads: from features to logits."""

import torch

from vitrail.grid import Grid
from vitrail.parts.backbone import Features
from vitrail.parts.heads import DistilledHead, FirstToken, LinearHead, MeanToken, NormedMean

FEATURES = Features(torch.randn(3, 8, 4), Grid(2, 3, prefix=2), ())
TOKENS = FEATURES.tokens


def test_pools_read_the_named_tokens():
    assert torch.equal(FirstToken()(FEATURES), TOKENS[:, 0])
    torch.testing.assert_close(MeanToken()(FEATURES), sum(TOKENS[:, i] for i in range(2, 8)) / 6)


def test_the_normed_mean_normalises_after_the_mean():
    got = NormedMean(4)(FEATURES)
    mean = TOKENS[:, 2:].mean(dim=1)
    want = (mean - mean.mean(1, keepdim=True)) / (mean.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(got, want)


def test_no_classes_leave_the_vector():
    assert torch.equal(LinearHead(FirstToken(), 4, num_classes=0)(FEATURES), TOKENS[:, 0])
    torch.testing.assert_close(DistilledHead(4, num_classes=0)(FEATURES), (TOKENS[:, 0] + TOKENS[:, 1]) / 2)


def test_a_distilled_head_averages_logits_in_training_too():
    head = DistilledHead(4, num_classes=5)
    of_class, of_teacher = head.both(FEATURES)
    assert torch.equal(of_class, head.linear(TOKENS[:, 0]))
    assert torch.equal(of_teacher, head.distillation(TOKENS[:, 1]))
    for mode in (True, False):
        torch.testing.assert_close(head.train(mode)(FEATURES), (of_class + of_teacher) / 2)


def test_an_average_of_logits_is_not_an_average_of_probabilities():
    head = DistilledHead(4, num_classes=5)
    both = [logits.softmax(dim=1) for logits in head.both(FEATURES)]
    assert not torch.allclose(head(FEATURES).softmax(dim=1), (both[0] + both[1]) / 2)
