"""Let a language model go on with a text: the config's own weights, or checkpoints of it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from arguments import Parser, add_common_arguments, check_inputs, positive, start  # noqa: E402

PROMPT = 'The history of the railway began when'


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='config file; the dense one also for slim checkpoints')
    parser.add_argument(
        'checkpoints',
        nargs='*',
        metavar='checkpoint',
        help="checkpoints, pruned or not, or GGUF files; default: the model's own weights",
    )
    parser.add_argument('--prompt', default=PROMPT, help=f'the beginning; default: "{PROMPT}"')
    parser.add_argument(
        '--max-new-tokens', type=positive, default=40, help='tokens to add; default: 40'
    )
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    check_inputs(parser, args, *args.checkpoints)
    return args


def main(args: argparse.Namespace) -> None:
    """Run the tool."""
    from projects.llm.models import HFCausalLM, generate_text
    from projects.prune_plugin import UserError
    from projects.prune_plugin.checkpoints.engines.files import is_engine_file, load_engine
    from projects.prune_plugin.checkpoints.model_loading import load_model
    from projects.prune_plugin.common.device import best_device
    from projects.prune_plugin.workflows import cli

    cfg = cli.read_config(args.config, args.cfg_options)
    cli.start_processes(cfg, args.launcher)
    device = best_device()
    for path in args.checkpoints or [None]:
        engine = is_engine_file(path)
        model = (load_engine(cfg, path) if engine else load_model(cfg, path, device)).model
        if not isinstance(model, HFCausalLM):
            raise UserError(
                f'{args.config} has a {type(model).__name__}, which writes no text; give the config of '
                'an HFCausalLM'
            )
        tokenizer = None if engine else model.tokenizer
        added = generate_text(model, tokenizer, args.prompt, args.max_new_tokens)
        print(f'\n{path or cfg.model.path}:\n  {args.prompt}{added}', flush=True)


if __name__ == '__main__':
    start(parse, main)
