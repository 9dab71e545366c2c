"""What a step of 16 bits costs a card, by counts on the meta device."""

import pytest
import torch
from support.counts import Product, counting

from ablate.training import products


def test_counts_are_those_that_a_pencil_gives():
    x, w = torch.ones(5, 6, requires_grad=True), torch.ones(6, 7)
    with counting([w]) as counts:
        y = (x @ w).t().exp()
        y.sum().backward()
        assert float(y.detach()[0, 0]) > 1
    assert counts.products == [Product(torch.float32, 1, 5, 6, 7), Product(torch.float32, 1, 5, 7, 6)]
    assert counts.flops == {torch.float32: 2 * 2 * 5 * 6 * 7}
    assert dict(counts.kernels_by_name) == {"mm": 2, "exp": 1, "sum": 1, "ones_like": 1, "mul": 1}
    assert counts.bytes_by_name["mm"] == 2 * 4 * (5 * 6 + 6 * 7 + 5 * 7)
    assert counts.bytes_kept == 4 * 5 * 7  # the exponentials; the weight does not count
    assert counts.syncs_by_name == {"_local_scalar_dense": 1}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_card_multiplies_16_bits_and_sums_in_float32(dtype):
    a, b = torch.empty(5, 6, dtype=dtype, device="meta"), torch.empty(6, 7, dtype=dtype, device="meta")
    with counting() as counts:
        total = products.product(a, b)
        products.add_product(total, a, b)
        products.add_product(total.to(dtype), a, b)
    assert total.dtype == torch.float32
    assert counts.products == [Product(dtype, 1, 5, 6, 7)] * 3
    assert counts.kernels == 4
