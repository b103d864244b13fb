"""What a training takes of memory, forecast from its settings; whether that fits, and what would."""

import re
from dataclasses import replace

import pytest
import torch

from conftest import tiny_config
from unstir.cli.messages import of_limits
from unstir.errors import OutOfMemoryError, UserError, asked_for, is_out_of_memory
from unstir.nn.activations import sampling_bytes, training_bytes
from unstir.runs import build, memory, resources
from unstir.runs.config import Config
from unstir.runs.recipes import load_recipe
from unstir.runs.sections import TrainConfig
from unstir.train import paths

CPU, CUDA, SHAPE = torch.device("cpu"), torch.device("cuda"), (3, 32, 32)
RECIPE = load_recipe("cifar10")
HO = replace(RECIPE, train=replace(RECIPE.train, batch_size=16), grids=replace(RECIPE.grids, num=16))
WEIGHT = 4 * 35_746_307


def ho(**changes):
    return replace(HO, train=replace(HO.train, **changes))


@pytest.fixture
def there(monkeypatch):
    """there(bytes): the memory of every device, and what this process can have of it."""

    def set_to(number):
        for name in ("memory", "reachable"):
            monkeypatch.setattr(resources, name, lambda device: number)

    return set_to


@pytest.mark.parametrize(
    ("optimizer", "ema_decay", "power_ema", "copies"),
    [("muon", 0.0, False, 3), ("adam", 0.0, False, 4), ("adamw", 0.9, False, 5), ("muon", 0.9, True, 6)],
)
def test_training_holds_a_weight_its_gradient_its_moments_and_its_averages(optimizer, ema_decay, power_ema, copies):
    train = TrainConfig(optimizer=optimizer, ema_decay=ema_decay, power_ema=power_ema)
    assert memory.copies(Config(train=train)) == copies


def test_images_take_their_activations_and_as_many_noises_as_are_drawn():
    each = training_bytes(build.network_config(HO), 32, 32, 4)
    assert memory.activations(HO, SHAPE, CPU) == each + 6 * 4 * 3072
    low, few = (
        memory.activations(ho(**change), SHAPE, CPU)
        for change in ({"dtype": "bfloat16"}, {"activation_checkpointing": 2})
    )
    assert 0.5 < low / each < 0.55 and 0.4 < few / each < 0.45
    tiny = tiny_config("store", loss__noise_choices=64, model__mults=[1], model__attention=[])
    few, many = (
        memory.activations(replace(tiny, loss=replace(tiny.loss, noise_choices=num)), (3, 8, 8), CPU) for num in (1, 64)
    )
    assert few < many == 16 * 64 * 3 * 64


def test_paths_are_held_and_the_teachers_network_is_called_where_a_run_is_distilled():
    usual = tiny_config("store")
    distilled = tiny_config(
        "store", diffusion__predict="v", loss__objective="consistency", grids__sampler="consistency"
    )
    numbers, num = 64, distilled.train.batch_size
    steps = [memory.of_steps(each, (1, 8, 8), CUDA) for each in (usual, distilled)]
    assert steps[1].images - steps[0].images == num * 4 * numbers * paths.PATHS * (paths.STEPS[1] + 1)
    assert steps[1].weights - steps[0].weights == 4 * build.num_parameters(distilled)
    wide = replace(distilled, train=replace(distilled.train, activation_checkpointing=len(distilled.model.mults)))
    sampled = sampling_bytes(build.network_config(wide), 8, 8, 4) + memory.OF_CHAIN * numbers
    assert memory.activations(wide, (1, 8, 8), CUDA) >= sampled
    said = memory.what_fits(distilled, (1, 8, 8), CPU, 0, 1000)
    assert said.startswith("nothing of this network fits: end other programs or raise this one's limit"), said


def test_the_peak_is_in_the_backward_pass_or_where_the_optimiser_steps():
    each = memory.activations(HO, SHAPE, CUDA)
    assert memory.of_steps(HO, SHAPE, CUDA, 7) == memory.Forecast(4 * WEIGHT, 16 * each, 7)  # no gradients yet
    parts = memory.of_steps(ho(micro_batch=8), SHAPE, CUDA)
    assert parts == memory.Forecast(5 * WEIGHT, 8 * each)  # those of the first part
    assert memory.of_steps(ho(micro_batch=1), SHAPE, CUDA) == memory.Forecast(6 * WEIGHT, 0)
    low = memory.of_steps(ho(dtype="bfloat16"), SHAPE, CUDA)
    assert low.weights == 4 * WEIGHT + WEIGHT // 2
    on_cpu = memory.of_steps(HO, SHAPE, CPU, 7)
    assert on_cpu.weights == 8 * WEIGHT and on_cpu.images == 16 * each  # with the copy that is saved
    assert on_cpu.rest == 7 + round(0.12 * 16 * each)
    few = ho(activation_checkpointing=1)
    assert memory.of_steps(few, SHAPE, CPU).weights == 9 * WEIGHT  # on top of what the allocator has not given back
    assert memory.of_steps(few, SHAPE, CUDA).weights == 4 * WEIGHT


def test_of_several_processes_each_takes_its_share_of_the_batch(monkeypatch):
    monkeypatch.setattr(memory.processes, "size", lambda: 3)
    assert [memory.at_once(TrainConfig(batch_size=16, micro_batch=num)) for num in (0, 4, 9)] == [6, 4, 6]
    each = memory.activations(HO, SHAPE, CUDA)
    assert memory.of_steps(HO, SHAPE, CUDA) == memory.Forecast(5 * WEIGHT, 6 * each)  # the gradients' buckets stay


def test_libraries_that_are_loaded_already_take_no_more(monkeypatch):
    monkeypatch.setattr(resources, "taken", lambda device: 100)
    monkeypatch.setattr(memory.sys, "modules", {})
    assert memory.of_program(CPU) == 100 + memory.LOADED and memory.of_program(CUDA) == 100
    monkeypatch.setattr(memory.sys, "modules", {"matplotlib.figure": 1})
    assert memory.of_program(CPU) == 100


def test_a_grid_may_take_more_than_a_step():
    few, many = (memory.of_grids(replace(HO, grids=replace(HO.grids, num=num)), SHAPE, CUDA) for num in (64, 640))
    assert many.images == 10 * few.images and many.weights == few.weights == 5 * WEIGHT
    assert memory.forecast(HO, SHAPE, CUDA) == memory.of_steps(HO, SHAPE, CUDA)
    large = replace(HO, grids=replace(HO.grids, num=640))
    assert memory.forecast(large, SHAPE, CUDA) == many


def guided(scale, num=64):
    """A config whose grids of ``num`` images have classifier-free guidance of this scale."""
    classes, hidden = replace(HO.model, num_classes=10), replace(HO.train, label_dropout=0.1)
    return replace(HO, model=classes, train=hidden, grids=replace(HO.grids, num=num, guidance=scale))


def test_the_networks_part_of_a_grid_counts_twice_where_guidance_computes_both_labels():
    network, chain = sampling_bytes(build.network_config(guided(3.0)), 32, 32, 4), memory.OF_CHAIN * 3072
    for scale, labels in ((1.0, 1), (0.0, 1), (0.5, 2), (3.0, 2)):
        expected, each = memory.of_grids(guided(scale), SHAPE, CUDA), labels * network + chain
        assert expected.images == 64 * each, scale
        assert memory.grid_that_fits(guided(scale, 1000), SHAPE, CUDA, 0, 200 * each) == 100, scale
        assert memory.of_steps(guided(scale), SHAPE, CUDA) == memory.of_steps(guided(1.0), SHAPE, CUDA)


def test_a_grid_that_should_have_fitted_is_halved_and_another_takes_what_fits():
    def advised(room):
        (said,) = options(memory.what_fits(guided(3.0, 1000), SHAPE, CUDA, 0, round(room)))
        return int(said[0].removeprefix("--grids.num "))

    takes = memory.of_grids(guided(3.0, 1000), SHAPE, CUDA).total
    assert advised(10 * takes) == advised(takes + 1) == 500
    num = advised(takes - 1e6)
    assert 500 < num < 1000
    fits, more = (memory.of_grids(guided(3.0, each), SHAPE, CUDA).total for each in (num, num + 1))
    assert fits <= 0.9 * (takes - 1e6) < more


def test_a_training_beyond_the_memory_for_certain_is_refused_with_what_fits(there):
    least = memory.of_steps(HO, SHAPE, CUDA).least
    assert least == pytest.approx(0.9 * memory.of_steps(HO, SHAPE, CUDA).total, rel=1e-6)
    there(least)
    memory.check(HO, SHAPE, CUDA)
    there(least - 1)
    with pytest.raises(UserError) as raised:
        memory.check(HO, SHAPE, CUDA)
    text = str(raised.value)
    assert text.startswith(
        "train.batch_size=16 images of 32x32 at once take at least 1.2 GB in training, more than the "
    )
    assert text.endswith("what fits: --train.micro_batch 4 (0.92 GB) or --train.activation_checkpointing 2 (0.90 GB)")
    with pytest.raises(UserError, match=r"train.micro_batch=15 images"):
        memory.check(ho(micro_batch=15), SHAPE, torch.device("cpu"))


def test_a_training_that_fits_without_the_copy_for_checkpoints_is_not_refused(there):
    taken, copied = memory.of_steps(HO, SHAPE, CPU), 4 * WEIGHT  # without gradients
    least = round(0.9 * (taken.weights - copied + taken.images))
    assert taken.total >= taken.weights + taken.images and taken.least == least
    there(least)
    memory.check(HO, SHAPE, CPU)
    there(least - 1)
    with pytest.raises(UserError, match="train.batch_size=16 images"):
        memory.check(HO, SHAPE, CPU)
    grids = memory.of_grids(HO, SHAPE, CPU)
    assert grids.least == round(0.9 * (grids.weights - copied + grids.images))


def options(text):
    """The settings that a remedy names, in words as they are typed, each with its forecast."""
    return re.findall(r"(--\S+ \d+(?: --\S+ \d+)?) \(([\d.]+) GB\)", text)


@pytest.mark.parametrize(
    ("changes", "room", "expected"),
    [
        ({}, 1.31, ["--train.micro_batch 8", "--train.activation_checkpointing 1"]),
        (
            {"micro_batch": 8, "activation_checkpointing": 1},
            1.0,
            ["--train.micro_batch 4", "--train.activation_checkpointing 2"],
        ),
        ({"batch_size": 128}, 2.0, ["--train.micro_batch 16"]),
        ({"batch_size": 128, "activation_checkpointing": 4}, 9.0, ["--train.micro_batch 64"]),
        ({"activation_checkpointing": 4, "micro_batch": 1}, 9.0, []),
        ({}, 0.6, []),
    ],
)
def test_what_fits_is_less_than_there_is_and_than_is_asked(there, changes, room, expected):
    config = ho(**changes)
    text = memory.what_fits(config, SHAPE, CUDA, 0, round(room * 1e9))
    assert [option for option, _ in options(text)] == expected, text
    assert all(float(takes) <= 0.9 * room + 0.05 for _, takes in options(text))
    assert bool(expected) is text.startswith("what fits: ") or text.endswith(
        "lower --model.channels, --model.mults or --model.num_blocks"
    )


@pytest.mark.parametrize(("device", "copy"), [(CPU, 4 * WEIGHT), (CUDA, 0)])
def test_the_copy_for_checkpoints_is_left_out_where_nothing_fits_with_it(device, copy):
    def fits(room):
        return memory.what_fits(HO, SHAPE, device, 0, round(room / memory.SAFE))

    least = memory.of_steps(ho(activation_checkpointing=4, micro_batch=1), SHAPE, device).total
    assert fits(least + 1e6).startswith("what fits: --train."), fits(least + 1e6)
    assert fits(least - copy - 1e6).startswith("nothing of this network fits: lower --model.channels")
    if copy:
        assert (found := options(fits(least - 1e6))) and all(float(takes) * 1e9 < least for _, takes in found)
        assert options(fits(least - copy + 1e6))


def test_a_forecast_in_words_says_what_may_be_left_out():
    on_cpu, on_cuda = (memory.in_words(memory.of_steps(HO, SHAPE, device)) for device in (CPU, CUDA))
    assert " GB of weights, 0.57 GB of them a copy that training can do without, " in on_cpu and "copy" not in on_cuda


def test_of_a_gpu_no_limit_of_the_machine_is_named(there):
    there(350_000_000)
    for device, remedy in ((CUDA, "end other programs on that GPU"), (CPU, resources.more(CPU))):
        text = memory.what_fits(HO, SHAPE, device, 480_000_000, 350_000_000)
        assert text == f"the program and its data alone need more: {remedy}"
    assert "ulimit -v" in remedy


def test_both_are_named_where_neither_alone_fits():
    config = replace(
        HO,
        train=replace(HO.train, batch_size=128, ema_decay=0.0),
        model=replace(HO.model, mults=(1, 1), channels=32, attention=()),
        grids=replace(HO.grids, num=1),
    )
    alone = memory.of_steps(config, (3, 256, 256), CUDA)
    tight = replace(config, train=replace(config.train, micro_batch=1, activation_checkpointing=2))
    room = memory.of_steps(tight, (3, 256, 256), CUDA).total / 0.89
    text = memory.what_fits(config, (3, 256, 256), CUDA, 0, round(room))
    assert [option for option, _ in options(text)] == ["--train.activation_checkpointing 2 --train.micro_batch 1"]
    assert alone.total > 20 * room


def test_a_grid_that_fits_is_named(there):
    config = replace(HO, grids=replace(HO.grids, num=10_000))
    there(10**10)
    with pytest.raises(
        UserError, match=r"^grids.num=10000 images .* more than the 10.0 GB of cuda; what fits: --grids.num \d+ "
    ) as raised:
        memory.check(config, SHAPE, CUDA)
    num = int(re.search(r"--grids.num (\d+)", str(raised.value))[1])
    takes = [
        memory.of_grids(replace(HO, grids=replace(HO.grids, num=each)), SHAPE, CUDA).total for each in (num, num + 1)
    ]
    assert takes[0] <= 9e9 < takes[1]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096000000 bytes."),
    ],
)
def test_out_of_memory_says_what_would_fit(there, error, monkeypatch):
    there(1_200_000_000)
    monkeypatch.setattr(memory.processes, "size", lambda: 2)
    one = replace(HO, train=replace(HO.train, batch_size=2 * HO.train.batch_size))
    with pytest.raises(OutOfMemoryError) as raised, memory.within_memory(one, SHAPE, CUDA, 0):
        raise error
    text = str(raised.value)
    assert text.startswith(
        f"out of memory{asked_for(error)}: this training takes about 1.5 GB (0.71 GB of weights, 0.80 GB of images)"
    )
    assert "this process can have 1.2 GB of cuda; what fits: --train.micro_batch 4 (" in text and "\n" not in text


@pytest.mark.parametrize(
    ("memory_there", "num", "says"),
    [
        (500_000_000, 16, "nothing of this network fits"),
        (980_000_000, 1000, "what fits: for its grids --grids.num "),
    ],
)
def test_of_a_step_of_one_image_at_once_it_says_what_fits_besides_smaller_parts_of_the_batch(
    there, memory_there, num, says
):
    there(memory_there)
    config = replace(HO, grids=replace(HO.grids, num=num))
    with pytest.raises(OutOfMemoryError) as raised, memory.within_memory(config, SHAPE, CUDA, 0):
        raise memory.OneImageError
    assert f") with train.micro_batch=1, and this process can have {memory_there / 1e9:.2f} GB" in str(raised.value)
    assert says in str(raised.value) and "--train.micro_batch" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "could not create a primitive",
    ],
)
def test_libraries_that_torch_calls_have_words_of_their_own_for_it(text, there):
    there(500_000_000)
    with pytest.raises(OutOfMemoryError), memory.within_memory(HO, SHAPE, CUDA, 0):
        raise RuntimeError(text)


def test_a_library_that_finds_no_room_is_told_of_as_memory_that_ran_out(there):
    there(500_000_000)
    found_no_room = ImportError("_c_internal_utils.so: failed to map segment from shared object")
    with pytest.raises(OutOfMemoryError), memory.within_memory(HO, SHAPE, CPU, 0):
        raise found_no_room
    assert "out of memory" in of_limits(found_no_room) and of_limits(ImportError("no module named q")) is None


def test_where_the_program_alone_is_too_large_no_other_network_is_advised(there):
    there(350_000_000)
    with pytest.raises(OutOfMemoryError) as raised, memory.within_memory(HO, SHAPE, CPU, 480_000_000):
        raise MemoryError
    text = str(raised.value)
    assert f"can have 0.35 GB of memory; the program and its data alone need more: {resources.more(CPU)}" in text
    assert "raise this one's limit (ulimit -v" in text
    assert "--model" not in text


def test_other_errors_are_left_alone():
    cannot = "could not create a primitive descriptor for the matmul primitive. Run workload with environment variable"
    for error in (RuntimeError("odd"), RuntimeError(cannot), ValueError("out of memory")):
        assert not is_out_of_memory(error)
        with pytest.raises(type(error)), memory.within_memory(HO, SHAPE, CUDA, 0):
            raise error


def test_a_network_beyond_the_memory_is_refused(there):
    there(20 * 35_746_307 - 1)
    with pytest.raises(UserError, match=r"35,746,307 parameters, which take 0.71 GB in training \(20 bytes each\)"):
        memory.check_weights(HO, CPU)
    there(20 * 35_746_307)
    memory.check_weights(HO, CPU)
