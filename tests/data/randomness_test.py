from sibert_jax.data import EpochPermutations, Purpose, generator

MASK, PAIR = Purpose.MASK, Purpose.PAIR


def draws(*identity):
    return tuple(generator(*identity).random(4))


def test_draws_are_a_function_of_their_identity():
    identities = [(7, MASK, 3, 11), (8, MASK, 3, 11), (7, PAIR, 3, 11), (7, MASK, 4, 11)]
    identities += [(7, MASK, 3, 12), (7, MASK, 11, 3), (2**64 - 1, MASK, 3, 11)]
    assert len({draws(*identity) for identity in identities}) == 7
    assert draws(*identities[0]) == draws(*identities[0])
    assert not set(generator(0, MASK, 0, 0).random(10_000)) & set(
        generator(0, MASK, 0, 1).random(9)
    )


def test_each_epoch_has_an_order_of_its_own():
    permutations, fresh = (EpochPermutations(seed=0, size=50) for _ in range(2))
    orders = [permutations(epoch).tolist() for epoch in range(5)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len(set(map(tuple, orders))) == 5
    for epoch in (4, 0, 3, 2, 1):
        assert fresh(epoch).tolist() == orders[epoch]
    assert EpochPermutations(seed=1, size=50)(0).tolist() != orders[0]
