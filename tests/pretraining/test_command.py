import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from radiodino_utils.cli import main

from ..synthetic_corpus import SMALLEST, synthetic_folder, synthetic_npz

TINY = [
    part
    for key, value in SMALLEST.items()
    if key not in ("steps", "batch_size")
    for part in ("--set", f"{key}={value}")
]


_HELP = """
import sys
from radiodino_utils.cli import main
try:
    main(["pretrain", "--help"])
except SystemExit:
    print("torch" in sys.modules)
"""


def test_help_explains_every_option_without_loading_torch():
    repository = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", _HELP],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": repository, "PATH": ""},
    )
    assert done.stdout.endswith("False\n") and "--hold-out" in done.stdout, done.stderr
    assert "koleo_weight" in done.stdout and "mean_patch_token" in done.stdout


def test_from_the_command_line_and_on(tmp_path, capsys):
    synthetic_folder(tmp_path / "images")
    options = [
        "--data",
        f"{tmp_path / 'images'}=1",
        "--data",
        f"{synthetic_npz(tmp_path / 'l.npz')}=2",
        "--batch-size",
        "8",
    ]
    options += [
        "--hold-out",
        f"npz:{tmp_path / 'l.npz'}",
        "--probe",
        f"npz:{tmp_path / 'l.npz'}",
        *TINY,
        "--monitor-every",
        "1",
    ]
    (tmp_path / "options.args").write_text(
        "\n".join([*options, "--steps", "2", "--method", "dino"])
    )
    with pytest.raises(SystemExit, match="0"):
        main(["pretrain", f"@{tmp_path / 'options.args'}", "--out", str(tmp_path / "run")])
    assert "after 2 of 2 steps" in capsys.readouterr().out
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [source["share of draws"] for source in facts["sources"]] == pytest.approx(
        [1 / 3, 2 / 3]
    )
    assert (
        (tmp_path / "run" / "monitor.csv").read_text().splitlines()[-1].split(",")[-1]
    )  # the probe's AUC


@pytest.mark.parametrize(
    "options, hint",
    [
        ([], "the corpus is empty"),
        (["--data", "nowhere"], "no such source"),
        (["--data", "{images}", "--set", "lr"], "write KEY=VALUE"),
        (["--data", "{images}", "--set", "lr=["], "--set lr=[: the value cannot be read"),
        (["@{images}/even/000.png"], "000.png: not a text file in UTF-8"),
        (["--data", "{images}", "--set", "lrr=3"], "did you mean"),
        (["--data", "{images}", "--config", "tiny"], "unknown configuration"),
        (["--data", "{images}", "--hold-out", "chestmnist-2"], "unknown dataset"),
        (["--data", "{images}", "--resume", "--batch-size", "8"], "holds no run to resume"),
    ],
)
def test_mistakes_end_with_one_sentence(tmp_path, capsys, options, hint):
    synthetic_folder(tmp_path / "images")
    options = [option.format(images=tmp_path / "images") for option in options]
    with pytest.raises(SystemExit) as caught:
        main(["pretrain", *options, "--out", str(tmp_path / "run")])
    assert caught.value.code == 2
    assert hint in capsys.readouterr().err


def test_adapting_from_the_command_line(tmp_path, capsys):
    images = synthetic_folder(tmp_path / "images", 100)
    torch.manual_seed(0)
    weights = timm.create_model("test_vit", num_classes=0).state_dict()
    save_file(weights, tmp_path / "start.safetensors", {"num_heads": "2"})
    start = f"file:{tmp_path / 'start.safetensors'}"
    options = ["--out", str(tmp_path / "run"), "--steps", "2", "--batch-size", "8", *TINY]
    with pytest.raises(SystemExit, match="0"):
        main(["adapt", str(images), "--backbone", start, *options])
    assert "backbone.safetensors after 2 of 2 steps" in capsys.readouterr().out
    assert {"backbone.safetensors", "README.md"} <= {p.name for p in (tmp_path / "run").iterdir()}
    few = synthetic_folder(tmp_path / "one", 1)
    options[1] = str(tmp_path / "another")
    for source, backbone, hint in (
        (few, start, "the corpus has 1 image; at least 100 are needed"),
        (images, "file:nowhere.safetensors", "nowhere.safetensors: there is no such weights file"),
        (images, "radiodino-mnii", "did you mean radiodino-mini"),
        (images, "pixels", "pixels: has no class and patch tokens"),
        (tmp_path / "nowhere", start, "there is no such source"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["adapt", str(source), "--backbone", backbone, *options])
        message = capsys.readouterr().err.splitlines()[-1]
        assert hint in message and "Traceback" not in message
