"""`hexapla COMMAND ...`: one function a command, imported when it is called."""

import importlib
import sys

from hexapla.cli import app

COMMANDS = {
    "evaluate": "judge any model on any benchmark",
    "compare": "set results side by side, with intervals and tests",
    "plan": "say what a run needs and what it would cost, without doing it",
    "inspect": "look at rejected and borderline rows beside their English",
}


def main() -> None:
    """Hand the rest of the command line to the command's function."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in COMMANDS:
        width = max(map(len, COMMANDS))
        lines = [f"  {command:{width}}  {what}" for command, what in COMMANDS.items()]
        usage = "\n".join(
            ["usage: hexapla COMMAND ...", "", *lines, "", "hexapla COMMAND --help tells more."]
        )
        asked = name in ("-h", "--help")
        print(usage if asked else f"hexapla: no command '{name}'; there are: {', '.join(COMMANDS)}",
              file=sys.stdout if asked else sys.stderr)  # fmt: skip
        sys.exit(0 if asked else 2)
    module = importlib.import_module(f"hexapla.cli.{name}")
    app.run(getattr(module, name), sys.argv[2:])


if __name__ == "__main__":
    main()
