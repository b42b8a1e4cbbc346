"""The machine's fastest product: every way computes the same product, and the fastest one is taken."""

import pytest
import torch

from vitrail.machine import matmul_peak
from vitrail.machine.matmul_peak import Product, best_product, products, rate

SHAPE, CPU = (24, 16, 40), torch.device("cpu")


@pytest.mark.parametrize(
    ("maker", "dtype"),
    [
        (matmul_peak._packed_by_onednn, torch.float32),
        (matmul_peak._packed_by_onednn, torch.bfloat16),
        (matmul_peak._packed_by_mkl, torch.float32),
    ],
)
def test_packed_products_are_the_product(maker, dtype):
    product = maker(SHAPE, dtype, CPU)
    if product is None:
        pytest.skip("this build or this processor has it not")
    x, weight = matmul_peak._factors(SHAPE, dtype, CPU)
    torch.testing.assert_close(product.run().float(), (x.float() @ weight.float().T), rtol=2e-2, atol=1e-1)


def test_two_operations_are_counted_for_each_multiply_add():
    product = matmul_peak._plain(SHAPE, torch.float32, CPU)
    assert product.flops == 2 * 24 * 16 * 40 and product.name == "linear 24 x 16 x 40"


def test_every_shape_has_its_plain_product():
    names = [product.name for product in products(torch.float32, CPU)]
    assert sum(name.startswith("linear ") for name in names) == len(matmul_peak._SHAPES)


def test_the_product_of_the_highest_rate_is_taken(monkeypatch):
    rates = {"a": 1.0, "b": 3.0, "c": 2.0}
    monkeypatch.setattr(matmul_peak, "products", lambda *_: [Product(name, 1, lambda: None) for name in rates])
    monkeypatch.setattr(matmul_peak, "rate", lambda product, seconds: rates[product.name])
    assert best_product(torch.float32).name == "b"


def test_a_rate_is_operations_over_the_median_second(monkeypatch):
    times = iter([0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 9.0])  # end of the time, then begin and end of three rounds
    monkeypatch.setattr(matmul_peak, "perf_counter", lambda: next(times))
    assert rate(Product("", 10, lambda: None), seconds=5.0) == 10.0
