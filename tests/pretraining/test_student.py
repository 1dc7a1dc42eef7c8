import torch

from radiodino_utils.pretraining.distillation_config import DistillationConfig
from radiodino_utils.pretraining.student import LOSSES, Student
from radiodino_utils.pretraining.teachers import Targets

QUICK = DistillationConfig(crops=48, batch_size=8, sizes=((32, 0.5), (48, 1.0)), lr=2e-3)


def test_several_teachers_count_alike():
    widths = {"one": (8, 4), "two": (16, 4)}
    student = Student(QUICK, widths)
    targets = [
        Targets(torch.randn(4, whole), torch.randn(4, channels, 14, 14))
        for whole, channels in widths.values()
    ]
    crops = torch.randn(4, 3, 32, 32)
    both = student.losses(crops, targets)
    alone = []
    for number in (0, 1):
        student.heads, kept = torch.nn.ModuleList([student.heads[number]]), student.heads
        alone.append(student.losses(crops, [targets[number]]))
        student.heads = kept
    for name in LOSSES:
        torch.testing.assert_close(both[name], (alone[0][name] + alone[1][name]) / 2)
