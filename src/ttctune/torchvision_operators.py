"""Let torchvision be imported beside a torch build that its compiled operators do not fit.

A CPU build of torch next to a CUDA build of torchvision (or the reverse) makes `import torchvision`, and with it
timm, fail with "operator torchvision::nms does not exist". Nothing in ttctune runs those operators; declaring their
signatures is enough. Import this module before the first import of torchvision or timm.
"""

import importlib.util
from pathlib import Path

import torch

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _compiled_operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    libraries = [p for p in Path(spec.origin).parent.glob("_C*") if p.suffix in {".so", ".pyd", ".dylib"}]
    try:
        for library in libraries:
            torch.ops.load_library(library)
    except OSError:
        return False
    return bool(libraries)


#: The declarations live as long as this object does; None where torchvision's own operators load.
DECLARED: torch.library.Library | None = None

if not _compiled_operators_load():
    DECLARED = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        DECLARED.define(operator + SIGNATURE)
