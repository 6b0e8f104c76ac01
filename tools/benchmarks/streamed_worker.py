"""One method of streamed.py, in a process whose memory is limited; its last line is the result."""

import argparse
import json
import resource
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

BLOCKS = r'lm\.model\.layers\.'
SPARSIFIERS = {
    'sparsegpt': dict(type='SparseGPT'),
    'magnitude': dict(type='Magnitude'),
    '2of4': dict(type='Magnitude', pattern='2:4'),
    'forward': dict(type='Magnitude'),
}


class Watch:
    """The most that the system counts of some kinds of this process's memory, in bytes."""

    KINDS = ('VmRSS', 'RssAnon', 'VmData')

    def __init__(self):
        self.peak = dict.fromkeys(self.KINDS, 0)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        """Look twenty times a second."""
        while True:
            found = self.status()
            self.peak = {kind: max(self.peak[kind], found[kind]) for kind in self.KINDS}
            time.sleep(0.05)

    @staticmethod
    def status() -> dict[str, int]:
        """What the system says now."""
        lines = Path('/proc/self/status').read_text().splitlines()
        entries = dict(line.split(':', 1) for line in lines)
        kinds = (*Watch.KINDS, 'VmHWM')
        return {kind: int(entries[kind].split()[0]) * 1024 for kind in kinds}

    def result(self) -> dict[str, float]:
        """Peaks in GiB, as the system has them."""
        peaks = {**self.peak, 'VmHWM': self.status()['VmHWM']}
        return {f'peak_{kind}_gib': size / 2**30 for kind, size in peaks.items()}


def in_out() -> dict[str, int]:
    """Bytes that this process has read and written through system calls."""
    lines = Path('/proc/self/io').read_text().splitlines()
    entries = dict(line.split(': ') for line in lines)
    return {'process_read': int(entries['rchar']), 'process_written': int(entries['wchar'])}


def make(args: argparse.Namespace) -> dict:
    """Write a model of random weights, tensor by tensor."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from projects.prune_plugin.checkpoints.shards import ShardWriter, plan_shards

    config = AutoConfig.for_model(**args.shape, dtype='bfloat16')
    with torch.device('meta'):
        lm = AutoModelForCausalLM.from_config(config)
    folder = args.folder / 'model'
    folder.mkdir()
    config.architectures = [type(lm).__name__]
    config.save_pretrained(folder)
    tensors = {name: (torch.bfloat16, tuple(t.shape)) for name, t in lm.state_dict().items()}
    writer = ShardWriter(folder, plan_shards(tensors, 5 * 10**9))
    generator = torch.Generator().manual_seed(0)
    for name, (dtype, shape) in tensors.items():
        value = torch.ones(shape, dtype=dtype)
        if len(shape) > 1:  # embeddings of ones would be too alike
            value = torch.empty(shape, dtype=dtype).normal_(0, 0.02, generator=generator)
        writer.write(name, value)
    return dict(params=sum(t.numel() for t in lm.parameters()), bytes=writer.bytes_written)


def config_of(args: argparse.Namespace) -> object:
    """The config of the run, its windows of random tokens."""
    import torch
    from mmengine.config import Config
    from mmengine.registry import DATASETS
    from torch.utils.data import Dataset

    import projects.llm  # noqa: F401

    @DATASETS.register_module()
    class RandomWindows(Dataset):
        """Windows of random tokens."""

        metainfo = dict(window=128, stride=128)

        def __init__(self, count: int, seed: int):
            generator = torch.Generator().manual_seed(seed)
            self.tokens = torch.randint(args.shape['vocab_size'], (count, 128), generator=generator)

        def __len__(self) -> int:
            return len(self.tokens)

        def __getitem__(self, index: int) -> dict:
            return {'inputs': self.tokens[index], 'scored': 127}

    def loader(count: int, seed: int) -> dict:
        return dict(
            batch_size=1, num_workers=0, dataset=dict(type='RandomWindows', count=count, seed=seed),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        )  # fmt: skip

    sparsifier = SPARSIFIERS[args.method]
    budget = {} if 'pattern' in sparsifier else dict(ratio=0.5)
    return Config(
        dict(
            model=dict(type='HFCausalLM', path=str(args.folder / 'model'), dtype='bfloat16', window=128),
            calibration_dataloader=loader(args.samples, 0),
            test_dataloader=loader(4, 1),
            test_evaluator=dict(type='Perplexity'),
            prune_cfg=dict(
                type='WeightPruner', sparsifier=sparsifier, budget=budget, include=[BLOCKS], name='bench',
                calibration=dict(num_samples=args.samples, batch_size=1),
                execution=dict(mode='streamed', offload=args.offload),
            ),
        )
    )  # fmt: skip


def prune(args: argparse.Namespace) -> dict:
    """Prune all blocks, or with ``--blocks`` some, as ``tools/analysis_struct.py`` does."""
    from projects.prune_plugin.common.json_csv import plain
    from projects.prune_plugin.workflows.options import PruneOptions
    from projects.prune_plugin.workflows.prune import pruner_from_config
    from projects.prune_plugin.workflows.streamed import StreamedRunner

    cfg = config_of(args)
    runner = StreamedRunner(cfg, pruner_from_config(cfg), PruneOptions(None, args.folder / 'out'))
    sweep = runner.sweep
    if args.blocks is None:
        result = runner.run()
        metrics = [result.report.dense.metrics, result.report.pruned.metrics]
        return dict(seconds=sweep.progress.seconds, metrics=plain(metrics), **moved(runner))
    with sweep.prepared(runner.batches, None):
        for number in range(*args.blocks):
            sweep.block(number)
    return dict(seconds=sweep.progress.seconds, **moved(runner))


def forward(args: argparse.Namespace) -> dict:
    """Read the same blocks, and run the same windows through them: nothing else."""
    import torch

    from projects.prune_plugin.calibration.data import forward_calls
    from projects.prune_plugin.calibration.loss import mmengine_loss
    from projects.prune_plugin.common.timing import timed
    from projects.prune_plugin.streaming.stream import capture
    from projects.prune_plugin.workflows.prune import data_factory, pruner_from_config
    from projects.prune_plugin.workflows.streamed import read_target

    cfg = config_of(args)
    pruner = pruner_from_config(cfg)
    skeleton = read_target(cfg, pruner).skeleton
    data = data_factory(cfg, pruner)(pruner.calibration)
    seconds: list[dict[str, float]] = []
    with torch.no_grad():
        skeleton.load(skeleton.early())
        stream = capture(
            skeleton.model, skeleton.chain, forward_calls(skeleton.model, data, mmengine_loss),
            args.folder / 'states', 'forward', 'cpu', args.offload == 'cpu',
        )  # fmt: skip
        skeleton.free(skeleton.early())
        for number in range(*args.blocks):
            seconds.append({})
            with timed(seconds[-1], 'read'):
                view = skeleton.block(number)
            with timed(seconds[-1], 'forward'):
                stream.advance(view)
            skeleton.take(view)
            stream.clean()
    return dict(seconds=seconds, bytes_read=skeleton.weights.bytes_read)


def moved(runner: object) -> dict:
    """Bytes of weights that a run has read and written, and what was estimated before it."""
    read, written = runner.target.skeleton.weights, runner.writer
    estimated = runner.estimate
    return dict(
        bytes_read=read.bytes_read,
        bytes_written=written.bytes_written,
        estimated_gib=estimated.peak / 2**30,
        estimate={name: size / 2**30 for name, size in vars(estimated).items()},
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('method', choices=('make', *SPARSIFIERS))
    parser.add_argument('--folder', type=Path, required=True)
    parser.add_argument('--shape', type=json.loads, required=True)
    parser.add_argument('--samples', type=int, required=True)
    parser.add_argument('--offload', required=True)
    parser.add_argument('--limit', type=int, required=True)
    parser.add_argument('--blocks', type=lambda text: [int(n) for n in text.split(':')])
    return parser.parse_args()


def main() -> None:
    """Measure."""
    args = parse()
    resource.setrlimit(resource.RLIMIT_DATA, (args.limit, args.limit))
    watch = Watch()
    start = time.perf_counter()
    jobs = {'make': make, 'forward': forward}
    result = jobs.get(args.method, prune)(args)
    if seconds := result.get('seconds'):
        totals = [sum(steps.values()) for steps in seconds]
        result['block_seconds_mean'] = sum(totals) / len(totals)
    result |= dict(total_seconds=time.perf_counter() - start, **watch.result(), **in_out())
    print(json.dumps(result))


if __name__ == '__main__':
    main()
