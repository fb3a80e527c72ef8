import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from torch import Tensor

from search_core import data
from search_core.data import BatchSampler, LabelledImages, StoredImages, halves, stratified
from search_core.randomness import stream
from search_core.spec.datasets import BaseDataset, DigitsDataset, SyntheticDataset

NO_FILES = (
    DigitsDataset(),
    SyntheticDataset(name="synthetic"),
    SyntheticDataset(
        name="synthetic", seed=3, num_train=70, num_test=30, image_shape=(2, 5, 9), num_classes=7
    ),
)


def stored(dataset: BaseDataset) -> tuple[StoredImages, StoredImages]:
    loaded = data.load(dataset)
    assert isinstance(loaded.train, StoredImages)
    assert isinstance(loaded.test, StoredImages)
    return loaded.train, loaded.test


def rows(*splits: StoredImages) -> list[tuple[int, ...]]:
    """Every image with its label, in an order that only the content decides."""
    images = [
        (int(label), *image.flatten().tolist())
        for split in splits
        for image, label in zip(split.pixels_nchw, split.labels_n, strict=True)
    ]
    return sorted(images)


def numbered(num_images: int) -> LabelledImages:
    numbers_n = torch.arange(num_images)
    return LabelledImages(numbers_n.float().reshape(-1, 1, 1, 1), numbers_n)


@pytest.mark.parametrize("dataset", NO_FILES)
def test_a_data_set_is_as_the_facts_say(dataset: BaseDataset) -> None:
    facts, loaded = dataset.facts, data.load(dataset)
    for split, num_images in ((loaded.train, facts.num_train), (loaded.test, facts.num_test)):
        assert len(split) == num_images
        (everything,) = split.in_order(num_images)
        assert everything.images_nchw.shape == (num_images, *facts.image_shape)
        assert everything.images_nchw.dtype == torch.float32
        assert everything.labels_n.shape == (num_images,)
        assert set(everything.labels_n.tolist()) == set(range(facts.num_classes))


@pytest.mark.parametrize("dataset", NO_FILES)
def test_no_image_is_in_two_splits(dataset: BaseDataset) -> None:
    train, test = stored(dataset)
    weights, alphas = halves(train, 0.5, stream(0, "halves"))
    assert rows(weights, alphas) == rows(train)
    assert len(weights) + len(alphas) == len(train)
    everything = rows(weights, alphas, test)
    assert len(set(everything)) == len(everything)


def test_every_digit_is_in_exactly_one_split() -> None:
    train, test = stored(DigitsDataset())
    bunch = load_digits()
    everything = StoredImages(
        torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1),
        torch.from_numpy(bunch.target),
        train.normalisation,
    )
    assert rows(train, test) == rows(everything)


@pytest.mark.parametrize("dataset", NO_FILES[:2])
def test_normalised_by_the_training_split(dataset: BaseDataset) -> None:
    train, _ = stored(dataset)
    (everything,) = train.in_order(len(train))
    exactly = dataset.name == "digits"
    assert float(everything.images_nchw.mean()) == pytest.approx(0, abs=1e-5 if exactly else 0.02)
    assert float(everything.images_nchw.std()) == pytest.approx(1, abs=1e-5 if exactly else 0.02)


def test_measuring_sees_every_image_in_its_place() -> None:
    train, _ = stored(DigitsDataset())
    parts = list(train.in_order(500))
    assert [len(part) for part in parts] == [500, 500, 437]
    (everything,) = train.in_order(len(train))
    assert torch.equal(torch.cat([part.images_nchw for part in parts]), everything.images_nchw)
    assert torch.equal(torch.cat([part.labels_n for part in parts]), train.labels_n)


def test_the_test_split_is_fixed_and_stratified() -> None:
    torch.manual_seed(5)
    (_, once), (train, again) = stored(DigitsDataset()), stored(DigitsDataset())
    assert torch.equal(once.pixels_nchw, again.pixels_nchw)
    counts = torch.bincount(once.labels_n)
    share = counts / (counts + torch.bincount(train.labels_n))
    assert float((share - 360 / 1797).abs().max()) < 1 / 174


def test_synthetic_images_come_from_the_seed_alone() -> None:
    def pixels(seed: int) -> Tensor:
        return stored(SyntheticDataset(name="synthetic", seed=seed))[0].pixels_nchw

    before = torch.get_rng_state()
    assert torch.equal(pixels(1), pixels(1))
    assert not torch.equal(pixels(1), pixels(2))
    assert torch.equal(before, torch.get_rng_state())


def test_no_linear_model_solves_synthetic_images() -> None:
    # A search does: see test_search_data.py.
    train, test = stored(SyntheticDataset(name="synthetic", image_shape=(1, 8, 8), noise=0.2))
    linear = RidgeClassifier().fit(train.pixels_nchw.flatten(1) / 255, train.labels_n)
    assert linear.score(test.pixels_nchw.flatten(1) / 255, test.labels_n) < 0.25


def test_stratified_draws_exactly_as_many_as_asked() -> None:
    labels_n = torch.tensor([0] * 5 + [1] * 3 + [2] * 3)
    for num_chosen in range(12):
        chosen = stratified(labels_n, num_chosen, stream(0, "test"))
        assert len(set(chosen.tolist())) == num_chosen
        per_class = torch.bincount(labels_n[chosen], minlength=3).tolist()
        exact = [num_chosen * count / 11 for count in (5, 3, 3)]
        assert all(abs(a - b) < 1 for a, b in zip(per_class, exact, strict=True))


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


def test_the_rest_of_a_pass_is_what_comes_next() -> None:
    sampler = BatchSampler(10, 3, stream(0, "batches"))
    take(sampler, 1)
    rest = [batch.tolist() for batch in sampler.rest_of_pass()]
    assert rest == take(sampler, 2)
    assert sampler.rest_of_pass() == []


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
