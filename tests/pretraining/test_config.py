import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining.config import PretrainConfig
from radiodino_utils.pretraining.config_files import config_names, load_config


@pytest.mark.parametrize("name", config_names())
def test_every_configuration_is_whole(name):
    config = load_config(name, images=27_000)
    assert set(config.describe()) == set(PretrainConfig.model_fields)
    assert config.steps > 0
    assert "auto" not in config.describe().values()


def test_small_scales_with_the_corpus():
    dims = [
        load_config("small", images=n).output_dim
        for n in (500, 20_001, 60_000, 150_000, 400_000, 10**6)
    ]
    assert dims == [1024, 2048, 4096, 16_384, 32_768, 65_536]
    few, many = load_config("small", images=500), load_config("small", images=10**6)
    assert (few.teacher_temp, few.momentum, few.warmup) == (0.02, 0.99, 0.15)
    assert (many.teacher_temp, many.momentum, many.warmup) == (0.07, 0.996, 0.1)


def test_greyscale_configurations_have_no_colour_and_no_solarize():
    assert not [name for name in PretrainConfig.model_fields if "sol" in name or "hue" in name]


def test_changes_and_files(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: small\nrotation: 5\nlr: 1e-3\n")
    config = load_config(tmp_path / "mine.yaml", images=100, steps=7, method="dinov2")
    assert (config.rotation, config.lr, config.steps, config.method) == (5.0, 1e-3, 7, "dinov2")
    assert config.masks_patches and not load_config("small", images=100).masks_patches


@pytest.mark.parametrize(
    "changes, hint",
    [
        (
            {"rotatoin": 3},
            "small: unknown option of PretrainConfig 'rotatoin'; did you mean rotation",
        ),
        (
            {"batch_size": "many"},
            "batch_size 'many': is not valid, input should be a valid integer",
        ),
        ({"clip_each": 1}, "clip_each 1: is not valid, input should be a valid boolean"),
        ({"gamma": [1]}, "gamma.1 .*is not valid, field required"),
        ({"global_size": 100}, "small: global_size 100 is no multiple of the patch"),
        ({"accumulate": 5}, "no multiple of accumulate"),
        ({"lr_scaling": "cubic"}, "unknown lr_scaling 'cubic'; known: linear256"),
        ({"method": "dino3"}, "unknown method 'dino3'; did you mean dino"),
    ],
)
def test_wrong_settings(changes, hint):
    with pytest.raises(InputError, match=hint):
        load_config("small", images=100, **changes)


def test_wrong_files(tmp_path):
    with pytest.raises(InputError, match="unknown configuration 'smal'; did you mean small"):
        load_config("smal", images=1)
    for text, hint in (
        ("method: dino", "are missing"),
        ("[", "no YAML"),
        ("", "holds no settings"),
    ):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(InputError, match=hint):
            load_config(tmp_path / "r.yaml", images=1)
