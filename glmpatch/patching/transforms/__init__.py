"""The transforms, by the name that a patch file calls them. A new one is a module and a line here."""

from glmpatch.patching.model import Transform
from glmpatch.patching.transforms.autocast import CpuAutocast
from glmpatch.patching.transforms.checkpoint_resume import CheckpointResume
from glmpatch.patching.transforms.frozen_broadcast import FrozenBroadcast
from glmpatch.patching.transforms.mpi_dtypes import MpiDtypes
from glmpatch.patching.transforms.precision import Precision
from glmpatch.patching.transforms.process_group import ProcessGroup
from glmpatch.patching.transforms.requirements import Requirements
from glmpatch.patching.transforms.train_flags import TrainFlags

TRANSFORMS: dict[str, type[Transform]] = {
    transform.name: transform
    for transform in (
        CheckpointResume,
        CpuAutocast,
        FrozenBroadcast,
        MpiDtypes,
        Precision,
        ProcessGroup,
        Requirements,
        TrainFlags,
    )
}
