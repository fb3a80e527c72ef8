import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from search_core import data
from search_core.data import BatchSampler, LabelledImages, halves, stratified
from search_core.errors import UnknownNameError
from search_core.randomness import stream
from search_core.spec import FACTS, DatasetName


def rows(*splits: LabelledImages) -> list[tuple[float, ...]]:
    """Every image with its label, in an order that only the content decides."""
    images = [
        (int(label), *image.flatten().tolist())
        for split in splits
        for image, label in zip(split.images_nchw, split.labels_n, strict=True)
    ]
    return sorted(images)


def numbered(num_images: int) -> LabelledImages:
    numbers_n = torch.arange(num_images)
    return LabelledImages(numbers_n.float().reshape(-1, 1, 1, 1), numbers_n)


@pytest.mark.parametrize("name", FACTS)
def test_a_data_set_is_as_the_facts_say(name: DatasetName) -> None:
    facts, dataset = FACTS[name], data.load(name)
    for split, num_images in ((dataset.train, facts.num_train), (dataset.test, facts.num_test)):
        assert split.images_nchw.shape == (num_images, *facts.image_shape)
        assert split.images_nchw.dtype == torch.float32
        assert split.labels_n.shape == (num_images,) == (len(split),)
        assert set(split.labels_n.tolist()) == set(range(facts.num_classes))


def test_every_digit_is_in_exactly_one_split() -> None:
    dataset = data.load("digits")
    weights, alphas = halves(dataset.train, 0.5, stream(0, "halves"))
    bunch = load_digits()
    train_nchw = dataset.train.images_nchw
    raw_nchw = torch.from_numpy(bunch.images).float().unsqueeze(1)
    # Normalisation is increasing, so ranks of the grey levels identify the raw images.
    levels = torch.unique(train_nchw)
    assert len(levels) == 17
    everything = LabelledImages(levels[raw_nchw.long()], torch.from_numpy(bunch.target))
    parts = [
        LabelledImages(
            levels[torch.searchsorted(levels, part.images_nchw)],
            part.labels_n,
        )
        for part in (weights, alphas, dataset.test)
    ]
    assert rows(*parts) == rows(everything)
    assert rows(weights, alphas) == rows(dataset.train)


def test_normalised_by_the_training_split() -> None:
    dataset = data.load("digits")
    assert float(dataset.train.images_nchw.mean()) == pytest.approx(0, abs=1e-5)
    assert float(dataset.train.images_nchw.std()) == pytest.approx(1, abs=1e-5)
    assert float(dataset.test.images_nchw.mean()) != pytest.approx(0, abs=1e-5)


def test_the_test_split_is_fixed_and_stratified() -> None:
    torch.manual_seed(5)
    once, again = data.load("digits"), data.load("digits")
    assert torch.equal(once.test.images_nchw, again.test.images_nchw)
    counts = torch.bincount(once.test.labels_n)
    share = counts / (counts + torch.bincount(once.train.labels_n))
    assert float((share - 360 / 1797).abs().max()) < 1 / 174


def test_stratified_draws_exactly_as_many_as_asked() -> None:
    labels_n = torch.tensor([0] * 5 + [1] * 3 + [2] * 3)
    for num_chosen in range(12):
        chosen = stratified(labels_n, num_chosen, stream(0, "test"))
        assert len(set(chosen.tolist())) == num_chosen
        per_class = torch.bincount(labels_n[chosen], minlength=3).tolist()
        exact = [num_chosen * count / 11 for count in (5, 3, 3)]
        assert all(abs(a - b) < 1 for a, b in zip(per_class, exact, strict=True))


def test_an_unknown_data_set() -> None:
    with pytest.raises(UnknownNameError, match="known are: digits"):
        data.load("cifar")  # type: ignore[arg-type]


@pytest.mark.parametrize(("portion", "num_weight_images"), [(0.5, 5), (0.7, 7), (0.1, 1)])
def test_halves_share_no_image(portion: float, num_weight_images: int) -> None:
    weights, alphas = halves(numbered(11), portion, stream(3, "halves"))
    assert len(weights) == num_weight_images
    together = [*weights.labels_n.tolist(), *alphas.labels_n.tolist()]
    assert sorted(together) == list(range(11))
    assert torch.equal(weights.images_nchw.flatten().long(), weights.labels_n)


def test_halves_depend_on_the_seed_only() -> None:
    one, again, other = (halves(numbered(40), 0.5, stream(seed, "halves"))[0] for seed in (0, 0, 1))
    assert torch.equal(one.labels_n, again.labels_n)
    assert not torch.equal(one.labels_n, other.labels_n)


def take(sampler: BatchSampler, num_batches: int) -> list[list[int]]:
    return [sampler.next().tolist() for _ in range(num_batches)]


def test_a_pass_has_whole_batches_without_repeats() -> None:
    sampler = BatchSampler(10, 3, stream(0, "batches"))
    assert sampler.batches == 3
    passes = [take(sampler, 3) for _ in range(2)]
    for batches in passes:
        images = [image for batch in batches for image in batch]
        assert len(set(images)) == 9
    assert passes[0] != passes[1]


@pytest.mark.parametrize("position", range(8))
def test_a_sampler_resumes_where_it_was(position: int) -> None:
    sampler = BatchSampler(10, 3, stream(0, "batches"))
    take(sampler, position)
    state = sampler.state_dict()
    expected = take(sampler, 7)
    resumed = BatchSampler(10, 3, stream(1, "batches"))
    resumed.load_state_dict(state)
    assert take(resumed, 7) == expected


def test_a_batch_must_fit() -> None:
    for batch_size in (0, 11):
        with pytest.raises(ValueError, match="out of 10 images"):
            BatchSampler(10, batch_size, stream(0, "batches"))


def test_streams_are_apart_and_repeat() -> None:
    def draw(seed: int, purpose: str) -> Tensor:
        return torch.rand(4, generator=stream(seed, purpose))

    assert torch.equal(draw(0, "weights"), draw(0, "weights"))
    assert not torch.equal(draw(0, "weights"), draw(0, "alphas"))
    assert not torch.equal(draw(0, "weights"), draw(1, "weights"))
