"""A card's products of 16 bits against those that a CPU makes of the same numbers."""

import pytest
import torch

from ablate.training import mixed_products, products

DTYPES = (torch.bfloat16, torch.float16)


def distance(ours, exact):
    assert ours.is_cuda
    return float((ours.cpu().double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.parametrize("alpha", [1.0, 1.5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_summed_in_float32_and_rounded_once(dtype, alpha):
    torch.manual_seed(0)
    a, b, total = torch.randn(64, 512).to(dtype), torch.randn(512, 32).to(dtype), torch.randn(64, 32)
    on_card = [x.cuda() for x in (a, b)]
    assert distance(products.product(*on_card, alpha), products.product(a, b, alpha)) < 1e-6
    added = products.add_product(total.cuda(), *on_card, alpha)
    assert added.dtype == torch.float32
    assert distance(added, products.add_product(total.clone(), a, b, alpha)) < 1e-6
    rounding = torch.finfo(dtype).eps
    assert distance(products.rounded_product(*on_card, alpha), products.product(a, b, alpha)) < rounding
    narrow = products.add_product(total.to(dtype).cuda(), *on_card, alpha)
    assert narrow.dtype == dtype
    assert distance(narrow, products.add_product(total.to(dtype), a, b, alpha)) < rounding


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_from_halves_are_exact_to_1e_5(dtype):
    torch.manual_seed(0)
    p, w, h = torch.rand(64, 512) * 1e-7, torch.randn(512, 32).to(dtype), torch.randn(64, 32).to(dtype)
    exact = p.double() @ w.double()
    assert distance(mixed_products.rows_product(p.cuda(), w.cuda(), is_exact=True), exact) < 1e-5
    total = mixed_products.columns_product(p.cuda(), h.cuda(), torch.zeros(512, 32).cuda())
    assert distance(total, p.double().T @ h.double()) < 1e-5
