"""Order of the fused tokens of a batch."""

import torch

from c2c_lightning.alignment.fusion_plan import FusedTokens, FusionPlan


def test_joined_tokens_are_in_the_order_of_rows_and_columns() -> None:
    first = FusedTokens(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([5, 6]))
    second = FusedTokens(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 3]), torch.tensor([7, 8, 9]))
    joined = FusedTokens.join([first, second])
    assert joined.row.tolist() == [0, 0, 0, 1, 1]
    assert joined.token.tolist() == [0, 1, 2, 0, 3]
    assert joined.source.tolist() == [7, 5, 8, 6, 9]
    assert len(FusedTokens.join([first.where(first.row > 1)])) == 0


def test_a_step_of_several_spans_is_in_that_order() -> None:
    """The spans differ in their other sharer; all tokens are fused with the first one."""
    everywhere = torch.arange(6).expand(2, 6)
    sometimes = everywhere.masked_fill(torch.tensor([False, True, True, False, False, False]), -1)
    plan = FusionPlan.of([everywhere, sometimes], torch.ones(2, 6, dtype=torch.long))
    (step,) = plan.one_pass
    assert len(plan.steps) == 3
    assert step.fused_tokens[0].row.tolist() == [0] * 5 + [1] * 5
    assert step.fused_tokens[0].token.tolist() == [*range(5), *range(5)]
