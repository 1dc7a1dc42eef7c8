from radiodino_utils.plots import live
from radiodino_utils.plots.live import LiveMonitor
from radiodino_utils.pretraining.progress import Progress

ROW = {
    "images": 8,
    "loss": 2.0,
    "dino": 2.0,
    "teacher_entropy": 1.0,
    "student_entropy": 2.0,
    "kl": 0.3,
    "feature_std": 0.9,
    "effective_rank": 9.0,
    "gradient_norm": 1.0,
    "lr": 1e-3,
    "momentum": 0.99,
    "images_per_second": 50.0,
}


def test_the_monitor_is_drawn_in_one_place_and_at_the_end(tmp_path, monkeypatch):
    shown, before = [], live.plt.get_fignums()

    class Handle:
        def update(self, figure):
            shown.append("updated")

    monkeypatch.setattr(
        "IPython.display.display", lambda figure, display_id: shown.append("new") or Handle()
    )
    watch = LiveMonitor(title="synthetic", seconds=1e9)
    progress = Progress(tmp_path, 1, 3, [ROW])
    for step in (1, 2, 3):
        progress.step = step
        watch(progress)
    assert shown == ["new", "updated"]
    assert live.plt.get_fignums() == before
