"""CPU time and memory of one test-mode frame of VAD, without data: the second frame of a scene."""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, save

#: Config, image height and width. The base model is measured small, as its reference is.
CASES = {
    'VAD_tiny 384x640': ('VAD_tiny_stage_2', 384, 640),
    'VAD_base 192x320': ('VAD_base_stage_2', 192, 320),
}


def measure(name: str, height: int, width: int) -> dict:
    """Seconds of CPU and wall, peak memory of this process in GB, parameters."""
    sys.path.insert(0, str(ROOT))
    import torch
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    cfg = Config.fromfile(ROOT / f'projects/configs/VAD/{name}.py')
    init_default_scope(cfg.default_scope)
    cfg.model.img_backbone.init_cfg = None
    cfg.model.input_shape = (6, height, width)
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        for frame in range(2):
            inputs = model.dummy_inputs(1)
            inputs['data_samples'][0].frames[0]['timestamp'] = float(frame)
            cpu, wall = time.process_time(), time.perf_counter()
            model(**inputs, mode='predict')
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return dict(
        cpu_seconds=cpu,
        wall_seconds=wall,
        peak_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        params=sum(p.numel() for p in model.parameters()),
    )


def main() -> None:
    """Measure each case three times in fresh processes; keep the median by CPU time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--case', choices=CASES, help='measure this one here, once')
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(*CASES[args.case])))
        return
    result = {}
    for case in CASES:
        command = [sys.executable, str(Path(__file__).resolve()), '--case', case]
        runs = [
            json.loads(
                subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1]
            )
            for _ in range(3)
        ]
        result[case] = sorted(runs, key=lambda run: run['cpu_seconds'])[1]
    save('vad_frame', result)


if __name__ == '__main__':
    main()
