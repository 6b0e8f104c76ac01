"""Let a language model go on with a text: the config's own weights, or checkpoints of it."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.prune_plugin.workflows import cli  # noqa: E402

PROMPT = 'The history of the railway began when'


def parse(argv: Sequence[str] | None):
    """Parse the command line."""
    parser = cli.Parser(description=__doc__)
    parser.add_argument('config', help='config file; the dense one also for slim checkpoints')
    parser.add_argument(
        'checkpoints',
        nargs='*',
        metavar='checkpoint',
        help="checkpoints, pruned or not, one after the other; default: the model's own weights",
    )
    parser.add_argument('--prompt', default=PROMPT, help=f'the beginning; default: "{PROMPT}"')
    parser.add_argument(
        '--max-new-tokens', type=cli.positive, default=40, help='tokens to add; default: 40'
    )
    cli.add_common_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse(argv)

    import torch

    from projects.llm.models import HFCausalLM, generate_text
    from projects.prune_plugin import UserError
    from projects.prune_plugin.checkpoints.model_loading import load_model
    from projects.prune_plugin.common import distributed

    cfg = cli.read_config(args.config, args.cfg_options)
    distributed.init(args.launcher)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    for path in args.checkpoints or [None]:
        model = load_model(cfg, path, device).model
        if not isinstance(model, HFCausalLM):
            raise UserError(
                f'{args.config} has a {type(model).__name__}, which writes no text; give the config of '
                'an HFCausalLM'
            )
        added = generate_text(model, model.tokenizer, args.prompt, args.max_new_tokens)
        print(f'\n{path or cfg.model.path}:\n  {args.prompt}{added}', flush=True)


if __name__ == '__main__':
    cli.run(main)
