"""What a step of 16 bits costs a card, by counts on the meta device."""

import pytest
import torch
from support.counts import Product, counting

from ablate.training import mixed_products, products


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


# numbers, as a CPU makes them of the same halves


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_from_halves_are_exact_to_1e_5_however_small_the_numbers(dtype):
    torch.manual_seed(0)
    spread = torch.logspace(-9, 0, 40)[:, None]  # as a softmax over many tokens has them: float16 ends at 6e-8
    p, w, h = torch.rand(40, 300) * spread, torch.randn(300, 16).to(dtype), torch.randn(40, 16).to(dtype)
    by_rows = mixed_products.rows_product(p, w, is_exact=True).double()
    exact = p.double() @ w.double()
    assert ((by_rows - exact).norm(dim=1) < 1e-5 * exact.norm(dim=1)).all()
    rounded = mixed_products.rows_product(p, w, is_exact=False).double()
    assert ((rounded - exact).norm(dim=1) < 5e-3 * exact.norm(dim=1)).all()
    total = torch.ones(300, 16)
    by_columns = mixed_products.columns_product(p, h, total.clone()).double()
    exact = p.double().T @ h.double()
    assert ((by_columns - 1 - exact).norm(dim=1) < 1e-5 * exact.norm(dim=1)).all()
    alone = mixed_products.columns_product(p * 1e-9, h).double()
    assert ((alone - 1e-9 * exact).norm(dim=1) < 1e-5 * (1e-9 * exact).norm(dim=1)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_product_has_the_gradient_of_the_wide_one_to_its_rounding(dtype):
    torch.manual_seed(0)
    operands = torch.randn(9, 30), torch.randn(30, 11)
    grad = 1e-6 * torch.randn(9, 11)
    ours, exact = ([x.clone().to(wide).requires_grad_() for x in operands] for wide in (torch.float32, torch.float64))
    y = mixed_products.NarrowProduct.apply(*ours, dtype)
    y.backward(grad)
    (exact[0] @ exact[1]).backward(grad.double())
    assert y.dtype == torch.float32
    for a, b in zip(ours, exact, strict=True):
        assert (a.grad.double() - b.grad).norm() < 4e-3 * b.grad.norm()
