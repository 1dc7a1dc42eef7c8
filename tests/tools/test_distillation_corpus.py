import numpy as np
import pytest
from PIL import Image

from radiodino_utils.pretraining.separation import read_hashes
from tools import distillation_corpus

from ..synthetic_corpus import synthetic_images


@pytest.fixture
def sources(tmp_path):
    """Two folders; the first two images of the second repeat those of the first."""
    images = synthetic_images(24, size=96)[0]
    for name, part in (("first", images[:12]), ("second", [*images[:2], *images[12:]])):
        (tmp_path / name).mkdir()
        for index, image in enumerate(part):
            Image.fromarray(image).save(tmp_path / name / f"{index:02}.png")
    return tmp_path, images


def test_near_images_and_repeats_are_left_out(sources, monkeypatch, capsys):
    folder, images = sources
    brighter = np.clip(images[5, :, ::-1].astype(int) + 15, 0, 255).astype(np.uint8)
    monkeypatch.setattr(distillation_corpus, "held_out_images", lambda: [brighter, images[20]])
    arguments = [f"--data={folder / name}" for name in ("first", "second")]
    distillation_corpus.main([*arguments, f"--out={folder / 'list.csv'}"])
    assert "26 images, 2 near to held-out ones, 2 repeats" in capsys.readouterr().out
    assert len(read_hashes(folder / "list.csv")[0]) == 22


@pytest.mark.parametrize("limit", ["first", "first=many", "third=4"])
def test_a_limit_that_cannot_be(sources, limit, capsys, monkeypatch):
    folder, _ = sources
    monkeypatch.setattr(distillation_corpus, "held_out_images", list)
    arguments = [f"--data={folder / 'first'}", f"--limit={limit}", f"--out={folder / 'list.csv'}"]
    with pytest.raises(SystemExit, match="2"):
        distillation_corpus.main(arguments)
    assert f"{limit}: give SOURCE=N, a source of first" in capsys.readouterr().err
