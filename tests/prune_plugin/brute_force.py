"""The criteria by their definitions: unit by unit, with indices written out by hand."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from projects.prune_plugin.calibration.data import CalibrationData

#: (parameter, dimension, indices, 'in' for what computes the unit or 'out' for what reads it)
Piece = tuple[str, int, list[int], str]


def run(start: int, length: int) -> list[int]:
    return list(range(start, start + length))


def vit_unit(group: str, unit: int) -> list[Piece]:
    """Four heads of 12 in a width of 48; the MLP's layers are fc1 and fc2."""
    if group.endswith('mlp'):
        return [
            (f'{group}.fc1.weight', 0, [unit], 'in'),
            (f'{group}.fc1.bias', 0, [unit], 'in'),
            (f'{group}.fc2.weight', 1, [unit], 'out'),
        ]
    rows = [i for part in range(3) for i in run(48 * part + 12 * unit, 12)]
    return [
        (f'{group}.qkv.weight', 0, rows, 'in'),
        (f'{group}.qkv.bias', 0, rows, 'in'),
        (f'{group}.proj.weight', 1, run(12 * unit, 12), 'out'),
    ]


def llama_unit(group: str, unit: int) -> list[Piece]:
    """Two KV heads of 8, each with four query heads; gated MLP."""
    if group.endswith('mlp'):
        return [
            (f'{group}.gate_proj.weight', 0, [unit], 'in'),
            (f'{group}.up_proj.weight', 0, [unit], 'in'),
            (f'{group}.down_proj.weight', 1, [unit], 'out'),
        ]
    return [
        (f'{group}.q_proj.weight', 0, run(32 * unit, 32), 'in'),
        (f'{group}.k_proj.weight', 0, run(8 * unit, 8), 'in'),
        (f'{group}.v_proj.weight', 0, run(8 * unit, 8), 'in'),
        (f'{group}.o_proj.weight', 1, run(32 * unit, 32), 'out'),
    ]


def resnet_unit(group: str, unit: int) -> list[Piece]:
    """A channel of conv1, with its batch norm."""
    block = group.removesuffix('.conv1')
    return [
        (f'{block}.conv1.weight', 0, [unit], 'in'),
        (f'{block}.bn1.weight', 0, [unit], 'in'),
        (f'{block}.bn1.bias', 0, [unit], 'in'),
        (f'{block}.conv2.weight', 1, [unit], 'out'),
    ]


def encoder_unit(group: str, unit: int) -> list[Piece]:
    """Four heads of 8 in a width of 32, q, k, v stacked; linear1 and linear2."""
    if group.endswith('linear1'):
        layer = group.removesuffix('.linear1')
        return [
            (f'{layer}.linear1.weight', 0, [unit], 'in'),
            (f'{layer}.linear1.bias', 0, [unit], 'in'),
            (f'{layer}.linear2.weight', 1, [unit], 'out'),
        ]
    rows = [i for part in range(3) for i in run(32 * part + 8 * unit, 8)]
    return [
        (f'{group}.in_proj_weight', 0, rows, 'in'),
        (f'{group}.in_proj_bias', 0, rows, 'in'),
        (f'{group}.out_proj.weight', 1, run(8 * unit, 8), 'out'),
    ]


#: Rows of the matrix for which units are written out above.
UNITS_BY_HAND: dict[str, Callable[[str, int], list[Piece]]] = {
    'vit': vit_unit,
    'llama-gqa': llama_unit,
    'resnet18-channel': resnet_unit,
    'torch_encoder': encoder_unit,
}


@dataclass
class Truth:
    """A model and what was measured on it without the plugin's calibration.

    Attributes:
        units: One of ``UNITS_BY_HAND``.
        parameters: The model's, by name.
        gradient: Mean gradient over samples.
        fisher: Squared gradient of each batch's mean loss, averaged with the batches' sizes.
        rms: Root mean square of the inputs of each layer, by its weight's name.
        mean_abs: Their mean absolute value.
        gates: Squared derivative of each batch's mean loss by a gate on each unit, likewise averaged.
    """

    units: Callable[[str, int], list[Piece]]
    parameters: dict[str, Tensor]
    gradient: dict[str, Tensor]
    fisher: dict[str, Tensor]
    rms: dict[str, Tensor]
    mean_abs: dict[str, Tensor]
    gates: dict[str, Tensor]

    def elements(
        self, values: dict[str, Tensor], group: str, unit: int, parts: str, least_dim: int
    ):
        """Yield the values of one unit's elements, tensor by tensor."""
        for name, dim, indices, side in self.units(group, unit):
            if parts in ('both', side) and values[name].dim() >= least_dim:
                for index in indices:
                    yield values[name].select(dim, index).double()


def l1(truth: Truth, group: str, unit: int, cfg: dict) -> float:
    parts = cfg.get('parts', 'both')
    found = truth.elements(truth.parameters, group, unit, parts, 2)
    return sum(float(x.abs().sum()) for x in found)


def l2(truth: Truth, group: str, unit: int, cfg: dict) -> float:
    parts = cfg.get('parts', 'both')
    found = truth.elements(truth.parameters, group, unit, parts, 2)
    return sum(float((x * x).sum()) for x in found)


def taylor(truth: Truth, group: str, unit: int, cfg: dict) -> float:
    total = 0.0
    tables = (truth.parameters, truth.gradient, truth.fisher)
    for w, g, h in zip(*(truth.elements(t, group, unit, 'both', 1) for t in tables), strict=True):
        total += float((w * g).abs().sum())
        if cfg.get('order', 1) == 2:
            total += float((w * w * h).sum()) / 2
    return total


def wanda(truth: Truth, group: str, unit: int, cfg: dict) -> float:
    norm = cfg.get('norm', 'l2')
    if cfg.get('parts') == 'both':  # every weight times the unit's activation
        assert norm == 'l1'
        seen = []
        for name, _, indices, side in truth.units(group, unit):
            if side == 'out':
                seen.append(float(truth.mean_abs[name][list(indices)].mean()))
        return sum(seen) / len(seen) * l1(truth, group, unit, {})
    inputs = truth.rms if norm == 'l2' else truth.mean_abs
    total = 0.0
    for name, dim, indices, side in truth.units(group, unit):
        if side == 'out':
            for index in indices:
                column = truth.parameters[name].select(dim, index).double()
                total += float(column.abs().sum() * inputs[name][index])
    return total


def fisher(truth: Truth, group: str, unit: int, cfg: dict) -> float:
    return float(truth.gates[group][unit])


#: Criteria by type; Random has properties instead of a definition.
DEFINITIONS = {'L1': l1, 'L2': l2, 'Taylor': taylor, 'Wanda': wanda, 'Fisher': fisher}


def normalised(scores: list[float], how: str) -> list[float]:
    divisor = {'none': 1.0, 'mean': sum(scores) / len(scores), 'max': max(scores)}[how]
    return [score / divisor for score in scores]


def weights_held(pieces: list[Piece], parameters: dict[str, Tensor]) -> int:
    """Weights of one unit, biases and norms left out."""
    found = [(parameters[name], dim, indices) for name, dim, indices, _ in pieces]
    return sum(w.numel() // w.shape[d] * len(i) for w, d, i in found if w.dim() > 1)


# Measuring


def dataset(inputs: Callable[[int], Tensor], number: int, classes: int) -> list[dict]:
    generator = torch.Generator().manual_seed(8)
    labels = torch.randint(0, classes, (number,), generator=generator).tolist()
    return [dict(inputs=inputs(i), labels=labels[i]) for i in range(number)]


def calibration_data(samples: list[dict], batch_size: int = 3, num_samples: int = 99):
    loader = dict(dataset=samples, collate_fn=dict(type='default_collate'))
    return CalibrationData(loader, num_samples, batch_size, seed=0)


def loss_of(model: nn.Module, batch: dict) -> Tensor:
    """Cross entropy on the model's outputs, averaged over all but the last dimension."""
    output = model(batch['inputs'])
    output = getattr(output, 'logits', output)
    logits = output if output.dim() == 2 else output.mean(1)
    return F.cross_entropy(logits, batch['labels'])


def batches(samples: list[dict], data: CalibrationData) -> Iterator[dict]:
    for indices in data.batches:
        chosen = [samples[i] for i in indices.tolist()]
        yield dict(
            inputs=torch.stack([s['inputs'] for s in chosen]),
            labels=torch.tensor([s['labels'] for s in chosen]),
        )


def gradients(model: nn.Module, samples: list[dict], data: CalibrationData):
    """Mean gradient, sample by sample; and the batches' squared ones."""
    parameters = dict(model.named_parameters())
    mean = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in parameters.items()}
    fisher = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in parameters.items()}
    total = sum(len(batch) for batch in data.batches)
    for batch in batches(samples, data):
        number = len(batch['labels'])
        for i in range(number):
            one = {key: value[i : i + 1] for key, value in batch.items()}
            for name, g in zip(mean, grad_of(model, one), strict=True):
                mean[name] += g.double() / total
        for name, g in zip(fisher, grad_of(model, batch), strict=True):
            fisher[name] += g.double() ** 2 * number / total
    return mean, fisher


def gated(model: nn.Module, readers: dict[str, list[Piece]]) -> tuple[dict, dict]:
    """Gates of ones on what reads units, and the parameters as they are with these gates.

    A factor on a column of a weight is a factor on the input that it multiplies.

    Args:
        model: The model.
        readers: For each group the pieces of its readers, unit by unit.
    """
    gates, parameters = {}, dict(model.named_parameters())
    for group, units in readers.items():
        gates[group] = gate = torch.ones(len(units), requires_grad=True)
        for number in range(len(units[0])):
            name, dim, _, _ = units[0][number]
            columns = list(torch.ones(parameters[name].shape[dim]))
            for unit, pieces in enumerate(units):
                for index in pieces[number][2]:
                    columns[index] = gate[unit]
            shape = [1] * parameters[name].dim()
            shape[dim] = -1
            parameters[name] = parameters[name] * torch.stack(columns).view(shape)
    return gates, parameters


def gate_squares(
    loss: Callable[[dict], Tensor], gates: dict[str, Tensor], batches: list[dict]
) -> dict[str, Tensor]:
    """Squared derivatives of each batch's loss by the gates, averaged with the batches' sizes."""
    sizes = [len(batch['labels']) for batch in batches]
    squares = {group: torch.zeros(len(gate), dtype=torch.float64) for group, gate in gates.items()}
    for batch, size in zip(batches, sizes, strict=True):
        found = torch.autograd.grad(loss(batch), list(gates.values()), retain_graph=True)
        for group, derivative in zip(squares, found, strict=True):
            squares[group] += derivative.double() ** 2 * size / sum(sizes)
    return squares


def gates_by_hand(
    model: nn.Module, units: Callable[[str, int], list[Piece]], sizes: dict[str, int], batches
) -> dict[str, Tensor]:
    """:func:`gate_squares` of the groups ``sizes`` with units written out by hand."""
    readers = {
        group: [[p for p in units(group, u) if p[3] == 'out'] for u in range(size)]
        for group, size in sizes.items()
    }
    gates, parameters = gated(model, readers)

    def loss(batch: dict) -> Tensor:
        return loss_of(lambda x: functional_call(model, parameters, (x,)), batch)

    return gate_squares(loss, gates, list(batches))


def grad_of(model: nn.Module, batch: dict):
    return torch.autograd.grad(loss_of(model, batch), list(model.parameters()))


def input_sizes(
    model: nn.Module, samples: list[dict], data: CalibrationData
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Root mean square, and mean absolute value, of every layer's inputs; of attention by its formula."""
    seen: dict[str, list[Tensor]] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not name.endswith('out_proj'):

            def keep(module, args, name=name):
                features = args[0].movedim(1, -1) if args[0].dim() == 4 else args[0]
                seen.setdefault(f'{name}.weight', []).append(features.flatten(0, -2).double())

            handles.append(module.register_forward_pre_hook(keep))
        elif isinstance(module, nn.MultiheadAttention):

            def attend(module, args, name=name):
                features = heads_of(module, args[0]).flatten(0, 1).double()
                seen.setdefault(f'{name}.out_proj.weight', []).append(features)

            handles.append(module.register_forward_pre_hook(attend))
    for batch in batches(samples, data):
        loss_of(model, batch)  # with gradients, so that nothing takes a fused path
    for handle in handles:
        handle.remove()
    inputs = {name: torch.cat(x).detach() for name, x in seen.items()}
    rms = {name: x.square().mean(0).sqrt() for name, x in inputs.items()}
    return rms, {name: x.abs().mean(0) for name, x in inputs.items()}


def heads_of(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """What self-attention on ``x`` hands to ``out_proj``, head by head."""
    width = module.head_dim
    q, k, v = F.linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, -1)
    outputs = []
    for head in range(module.num_heads):
        part = slice(head * width, (head + 1) * width)
        weights = (q[..., part] @ k[..., part].transpose(1, 2) / width**0.5).softmax(-1)
        outputs.append(weights @ v[..., part])
    return torch.cat(outputs, -1)
