"""The sizes of a hub at the paper's models."""

from benchmarks.hub_sizes import HUBS, MODELS, main, sizes


def test_a_hub_grows_with_the_models_and_fusers_with_their_pairs() -> None:
    assert main() == 0
    growth = [sizes(dict(list(MODELS.items())[:count]), *HUBS["c2c"]) for count in (2, 3, 4)]
    assert growth[0][0] == 477_848_056 + 365_205_648, "the published fuser of the pair, and that of the swapped pair"
    ratios = [hub / fusers for fusers, hub in growth]
    assert ratios[0] > ratios[1] > ratios[2]
    assert ratios[2] < 0.5
