"""`hybridsim COMMAND [OVERRIDES]`: each command is an ordinary Hydra application.

The dispatcher takes the command word off the command line and calls that command's `@hydra.main`
function, so overrides, `--multirun`, `--help` and `--cfg` are Hydra's own. It imports neither Hydra
nor torch.
"""

from __future__ import annotations

import difflib
import os
import sys
from importlib import import_module
from itertools import takewhile

# command -> (module whose main() is a Hydra application, one line for --help)
COMMANDS = {
    "describe": ("hybridsim.commands.describe", "Show a spec's layers, parameters and graph."),
    "profile": ("hybridsim.commands.profile", "Cost a spec: FLOPs, cache, memory, times."),
    "compare": ("hybridsim.commands.compare", "Set specs side by side: do the hybrids pay off?"),
    "claims": ("hybridsim.commands.claims", "Recompute what the literature claims."),
    "train": ("hybridsim.commands.train", "Score what a spec can do, by short trainings."),
    "validate": ("hybridsim.commands.validate", "Measure how far a proxy can be trusted."),
    "import": ("hybridsim.commands.import_config", "Read a published config.json as a spec file."),
    "export": ("hybridsim.commands.export", "Write a spec as a config.json of transformers."),
    "search": ("search.command", "Search ratio and placement: the Pareto frontier for a workload."),
    "report": ("hybridsim.commands.report", "One HTML file of runs, with an explorer inside."),
    "generate": ("hybridsim.commands.generate", "Continue a prompt with a checkpoint's weights."),
}
# command -> the key that a first argument without `=` is the value of
POSITIONAL = {"import": "config"}
# command -> what its keys may also be called: `base=kimi_linear`, `base.hidden_size=1024`
ALIASES = {"search": {"base": "spec"}}
# command -> mappings whose fields the user names; Hydra would refuse those that are not there yet
OPEN_MAPPINGS = {
    "search": ("quality_weights", "sampler.options", "space.choices", "space.mixers"),
}
# command -> the key that all first arguments without `=` are the list of
POSITIONAL_LISTS = {"report": "runs"}

USAGE = """\
usage: hybridsim COMMAND [key=value ...] [--multirun] [--help]

commands:
{commands}

`hybridsim COMMAND --help` lists a command's options, `--cfg job` its composed config.
Tab completion: eval "$(hybridsim -sc install=bash)"

examples:
  hybridsim describe spec=qwen3_next
  hybridsim profile spec=kimi_linear hardware=h200 workload=agent_128k
  hybridsim profile spec=kimi_linear 'spec.layer_pattern=(LLLLLF)*4 LLF' format=json
  hybridsim compare specs=[kimi_linear,kimi_linear_mla] workloads=[chat,agent_128k]
  hybridsim profile -m spec=kimi_linear,qwen3_next workload=chat,agent_128k
  hybridsim search base=kimi_linear workload=agent_128k objectives=[decode_latency,quality]
  hybridsim import path/to/config.json name=new_model && hybridsim profile spec=./new_model.yaml
"""
INTERRUPTED = 130


def usage() -> str:
    """Return the text of `hybridsim --help`."""
    lines = [f"  {name:10s} {text}" for name, (_, text) in COMMANDS.items()]
    return USAGE.format(commands="\n".join(lines))


def main() -> None:
    """Run the command named by the first argument."""
    prog, *args = sys.argv
    if not args or args[0] in ("-h", "--help"):
        print(usage(), end="")
    elif args[0] == "--version":
        print(import_module("hybridsim").__version__)
    elif args[0] in ("-sc", "--shell-completion"):
        complete(prog, args)
    elif args[0] in COMMANDS:
        run(args[0], prog, args[1:])
    else:
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        sys.exit(f"hybridsim: no command {args[0]!r}{hint} (known: {', '.join(COMMANDS)})")


def run(command: str, prog: str, args: list[str]) -> None:
    """Hand the remaining arguments to the Hydra application of a command.

    A mistake of the user's ends in one line and exit code 1; a bug of ours keeps its traceback.
    """
    from hybridsim.spec.overrides import quote_patterns

    sys.argv = [prog, *quote_patterns(_opened(command, _renamed(command, _keyed(command, args))))]
    # Hydra would print and exit by itself; with this it raises, and `explain` makes the line.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        import_module(COMMANDS[command][0]).main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        line = _explained(error)
        if line is None:
            raise
        sys.exit(f"hybridsim {command}: {line}")
    if import_module("hybridsim.commands.task").FAILED_JOBS:
        sys.exit(1)


def _keyed(command: str, args: list[str]) -> list[str]:
    """Return the arguments with first ones that stand alone as the value of their key."""
    alone = list(takewhile(lambda arg: not arg.startswith("-") and "=" not in arg, args))
    if command in POSITIONAL and alone:
        return [f"{POSITIONAL[command]}={_quoted(args[0])}", *args[1:]]
    if command in POSITIONAL_LISTS and alone:
        values = ",".join(map(_quoted, alone))
        return [f"{POSITIONAL_LISTS[command]}=[{values}]", *args[len(alone) :]]
    return args


def _quoted(value: str) -> str:
    """Return a value as Hydra reads it, whatever is in it."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _renamed(command: str, args: list[str]) -> list[str]:
    """Return the arguments with a key's other name replaced by its own."""
    for other, key in ALIASES.get(command, {}).items():
        args = [
            key + arg[len(other) :] if arg.startswith((f"{other}=", f"{other}.")) else arg
            for arg in args
        ]
    return args


def _opened(command: str, args: list[str]) -> list[str]:
    """Return the arguments with those that fill an open mapping marked so, as Hydra wants it."""
    keys = OPEN_MAPPINGS.get(command, ())
    return [
        f"++{arg}" if arg.startswith(tuple(f"{key}{end}" for key in keys for end in "=.")) else arg
        for arg in args
    ]


def _explained(error: Exception) -> str | None:
    """Return one line for a mistake of the user's, None for a bug of ours."""
    from hybridsim.hydra_errors import explain
    from hybridsim.options import option_names
    from hybridsim.spec.load import spec_names

    groups = ("hardware", "workload", "proxy", "space", "sampler")
    return explain(error, {"spec": spec_names(), **{g: option_names(g) for g in groups}})


def complete(prog: str, args: list[str]) -> None:
    """Serve Hydra's shell completion: command names first, then the command's own options."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if not line:  # install or uninstall: the same script for every command
        run(next(iter(COMMANDS)), prog, args)
    elif len(words) > 1 and words[1] in COMMANDS and (len(words) > 2 or line.endswith(" ")):
        os.environ["COMP_LINE"] = line.replace(f" {words[1]}", "", 1)
        run(words[1], prog, args)
    else:
        start = words[1] if len(words) > 1 else ""
        print(" ".join(name for name in COMMANDS if name.startswith(start)))
