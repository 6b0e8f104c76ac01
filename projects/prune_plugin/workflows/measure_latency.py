"""Measure how long the layers of a list take on this machine, and write the times as a table.

It needs nothing of what has written the list: Python 3.8, numpy, onnx, and onnxruntime or TensorRT's
trtexec.
The graphs come without weights; random ones are filled in, as times don't depend on them.
"""

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

COLUMNS = ('shape', 'units', 'layer', 'graph', 'milliseconds')


def filled(path):
    """A graph with random weights where it has none, as an onnx.ModelProto."""
    import numpy
    import onnx

    model, random = onnx.load(path), numpy.random.default_rng(0)
    for tensor in model.graph.initializer:
        count = int(numpy.prod(tensor.dims))
        if tensor.data_type == onnx.TensorProto.FLOAT and count and not has_data(tensor):
            values = random.standard_normal(count, numpy.float32) / max(tensor.dims) ** 0.5
            tensor.raw_data = values.tobytes()
    return model


def has_data(tensor):
    """Whether a tensor of a graph holds its numbers."""
    return bool(tensor.raw_data or tensor.float_data)


class Onnxruntime:
    """Times graphs by onnxruntime on the CPU, one call after the other in turn."""

    def __init__(self, args):
        self.args = args

    def times(self, paths):
        """Median milliseconds of one call of each graph."""
        calls = [self.call(path) for path in paths]
        for call in calls:
            call()
        durations: list = [[] for _ in calls]
        end = time.perf_counter() + self.args.seconds
        while len(durations[0]) < 3 or time.perf_counter() < end:
            for call, found in zip(calls, durations):  # noqa: B905  Python 3.8 has no strict
                start = time.perf_counter()
                call()
                found.append(time.perf_counter() - start)
        return [1e3 * statistics.median(found) for found in durations]

    def call(self, path):
        """A function that runs a graph on random inputs."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.args.threads
        data = filled(path).SerializeToString()
        session = onnxruntime.InferenceSession(data, options, providers=['CPUExecutionProvider'])
        inputs = {node.name: example(node.shape, node.type) for node in session.get_inputs()}
        return lambda: session.run(None, inputs)


def example(shape, kind):
    """An input: random numbers, or zeros where integers are wanted."""
    import numpy

    types = {'int64': 'int64', 'int32': 'int32', 'bool': 'bool', 'float': 'float32'}
    name = next((types[key] for key in types if key in kind), None)
    if name is None:
        sys.exit('error: inputs of type {} are unknown'.format(kind))  # noqa: UP032
    if name == 'float32':
        return numpy.random.default_rng(1).standard_normal(shape, numpy.float32)
    return numpy.zeros(shape, name)


class Trtexec:
    """Times graphs by TensorRT's trtexec on a GPU."""

    MEDIAN = re.compile(r'GPU Compute Time:.*median = ([0-9.eE+-]+) ms')

    def __init__(self, args):
        self.args = args

    def times(self, paths):
        """Median milliseconds of one call of each graph."""
        return [self.time(path) for path in paths]

    def time(self, path):
        """Median milliseconds of one call."""
        with tempfile.TemporaryDirectory() as folder:
            graph = os.path.join(folder, 'graph.onnx')
            with open(graph, 'wb') as file:
                file.write(filled(path).SerializeToString())
            command = [self.args.trtexec, '--onnx=' + graph, *self.args.trtexec_args.split()]
            try:
                ended = subprocess.run(command, capture_output=True, text=True)
            except OSError as error:
                sys.exit('error: ' + self.args.trtexec + ' cannot be started: ' + error.strerror)
        found = self.MEDIAN.search(ended.stdout)
        if ended.returncode or not found:
            said = (ended.stderr or ended.stdout).strip().splitlines()[-1:]
            sys.exit('error: trtexec gave no time for ' + path + ': ' + ''.join(said))
        return float(found.group(1))


def read(path):
    """The rows of the list."""
    try:
        with open(path, encoding='utf-8', newline='') as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        sys.exit('error: ' + path + ' cannot be read: ' + error.strerror)
    if not rows or not all(row.get(name) for row in rows for name in COLUMNS[:4]):
        sys.exit('error: ' + path + ' is no list of layer shapes; take shapes.csv')
    return rows


def main():
    """Measure, shape by shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument('--shapes', default=os.path.join(here, 'shapes.csv'), help='the list')
    parser.add_argument('--out', default='latency.csv', help='the table to write')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads of onnxruntime')
    parser.add_argument('--seconds', type=float, default=1.0, help='time per layer shape')
    parser.add_argument('--trtexec', help='measure with this program of TensorRT instead')
    parser.add_argument('--trtexec-args', default='', help='its own flags, e.g. "--fp16"')
    args = parser.parse_args()
    rows = read(args.shapes)
    clock = Trtexec(args) if args.trtexec else Onnxruntime(args)
    folder = os.path.dirname(os.path.abspath(args.shapes))
    shapes: dict = {}
    for row in rows:
        shapes.setdefault(row['shape'], []).append(row)
    for number, (shape, group) in enumerate(shapes.items(), 1):
        times = clock.times([os.path.join(folder, row['graph']) for row in group])
        for row, milliseconds in zip(group, times):  # noqa: B905
            row['milliseconds'] = '{:.6g}'.format(milliseconds)  # noqa: UP032
        shown = ', '.join(row['units'] + ': ' + row['milliseconds'] for row in group)
        print('{}/{} {} ({})'.format(number, len(shapes), shape, shown), flush=True)  # noqa: UP032
    with open(args.out, 'w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction='ignore', lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    print(args.out)


if __name__ == '__main__':
    main()
