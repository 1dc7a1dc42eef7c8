"""The command behind `./run_all.sh` and `radiodino run`: its options, declared once, and its work.

Importing this module needs the standard library alone. `python -m radiodino_utils.workflow.command`
answers what needs no installation.
"""

import argparse
import signal
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InputError
from ..core.files import results_folder
from .notebooks import list_notebooks, outline, pick, profile_name
from .processes import environment, own_environment

if TYPE_CHECKING:
    from .study import Study

NEEDS_INSTALLATION = 3  # exit code
DESCRIPTION = """Run the notebooks of a profile.

Only those that are out of date run. The results and report.html go to results/PROFILE.
"""


def _option(default: object, description: str, metavar: str | None = None) -> Any:
    return field(default=default, metadata={"help": description, "metavar": metavar})


_OF_DATA = ("labels", "masks", "test", "backbone", "name", "quick")
_OF_TEST = ("test_labels", "test_masks")
_OF_PROFILES = ("profile", "list", "check", "save_outputs")


def _flag(name: str) -> str:
    return name.replace("_", "-")


@dataclass(frozen=True)
class RunOptions:
    """Options of a run of notebooks.

    Raises:
        InputError: If the number of jobs is below 1, or options do not go together.
    """

    profile: str = _option(
        "demo", "File of notebooks/profiles without suffix, or path of one elsewhere.", "NAME"
    )
    data: str | None = _option(None, "Images of your own, for which a profile is made.", "PATH")
    labels: str | None = _option(None, "List of the labels of --data, if it is elsewhere.", "CSV")
    masks: str | None = _option(None, "Folder of the masks of --data, if it is elsewhere.", "PATH")
    test: str | None = _option(None, "External test set with the labels of --data.", "PATH")
    test_labels: str | None = _option(
        None, "List of the labels of --test, if it is elsewhere.", "CSV"
    )
    test_masks: str | None = _option(
        None, "Folder of the masks of --test, if it is elsewhere.", "PATH"
    )
    backbone: tuple[str, ...] = _option(
        (), "Backbone for --data; may be given again. [radiodino-mini]", "NAME"
    )
    name: str | None = _option(None, "Name of the results of --data. [that of PATH]", "NAME")
    quick: bool = _option(False, "Leave out what takes most of the time with --data.")
    only: tuple[str, ...] = _option(
        (), "Run this notebook and what it needs; may be given again.", "03"
    )
    force: bool = _option(False, "Run notebooks although they are up to date.")
    jobs: int | None = _option(None, "Notebooks at a time, which share the processors. [2]", "N")
    allow_missing: bool = _option(False, "Run what the datasets and weights found here allow.")
    list: bool = _option(False, "List the notebooks of the profile and stop.")
    check: bool = _option(False, "Run into a temporary folder, compare with the committed tables.")
    save_outputs: bool = _option(False, "Put the outputs of the last run into notebooks/ and stop.")

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise InputError(f"--jobs {self.jobs}: at least one notebook at a time is needed.")
        given = [name for name in _OF_PROFILES if getattr(self, name) not in (False, "demo")]
        if self.data and given:
            raise InputError(f"--data makes a profile of its own; leave out --{_flag(given[0])}.")
        given = [name for name in _OF_DATA if getattr(self, name)]
        if given and not self.data:
            raise InputError(f"--{_flag(given[0])} belongs to --data PATH; give that too.")
        given = [name for name in _OF_TEST if getattr(self, name)]
        if given and not self.test:
            raise InputError(f"--{_flag(given[0])} belongs to --test PATH; give that too.")


def parse(arguments: list[str] | None = None) -> RunOptions:
    """Parse the options without any installed package.

    Raises:
        InputError: If the value of an option is not valid.
        SystemExit: After `--help`, and with exit code 2 if an option is unknown.
    """
    parser = argparse.ArgumentParser(prog="./run_all.sh", description=DESCRIPTION)
    for option in fields(RunOptions):
        settings: dict[str, Any] = {"help": option.metadata["help"]}
        if option.type is bool:
            settings["action"] = "store_true"
        else:
            settings["metavar"] = option.metadata["metavar"]
            settings["action"] = "append" if isinstance(option.default, tuple) else "store"
            settings["type"] = int if option.name == "jobs" else str
        parser.add_argument(f"--{_flag(option.name)}", **settings)
    given = vars(parser.parse_args(arguments))
    return RunOptions(**{name: value for name, value in given.items() if value is not None})


def run(options: RunOptions) -> int:
    """Do what the options say, and print it.

    Args:
        options: Options of the command line.

    Returns:
        Exit code: 1 if a notebook failed or a table differs, 2 for a full or protected disk,
        128 + signal after an interruption.

    Raises:
        InputError: See `run_profile`, `check_profile` and `save_outputs`.
    """
    try:
        with environment(own_environment()):
            return _run(options)
    except OSError as error:
        place = error.filename or results_folder(profile_name(options.profile))
        print(f"{place}: {error.strerror}; make room or mend it.", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print("interrupted; nothing is half-written, the next run continues here", file=sys.stderr)
        return 128 + (stopped.args or (signal.SIGINT,))[0]


def _run(options: RunOptions) -> int:
    profile, only = options.profile, options.only
    if options.data:
        from .study import write_study

        profile = str(write_study(_study(options)))
    if options.list:
        print(list_notebooks(profile))
        return 0
    if options.save_outputs:
        from .outputs import save_outputs

        print("\n".join(str(path) for path in save_outputs(profile, only=only)))
        return 0
    from ..core.environment import cpu_count

    jobs = options.jobs or min(2, cpu_count())
    if options.check:
        from .check import check_profile

        differences = check_profile(
            profile, only=only, jobs=jobs, allow_missing=options.allow_missing
        )
        success = f"every table of the profile {profile} is within its tolerance"
        print("\n".join(differences) or success)
        return 1 if differences else 0
    from .report import build_report
    from .runner import run_profile

    complete = run_profile(
        profile, only=only, force=options.force, jobs=jobs, allow_missing=options.allow_missing
    )
    print(build_report(profile_name(profile)))
    return 0 if complete else 1


def _study(options: RunOptions) -> "Study":
    from .study import Study

    return Study(
        Path(options.data or ""),
        labels=_path(options.labels),
        masks=_path(options.masks),
        test=_path(options.test),
        test_labels=_path(options.test_labels),
        test_masks=_path(options.test_masks),
        backbones=options.backbone,
        name=options.name or "",
        quick=options.quick,
    )


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def main(arguments: list[str] | None = None) -> None:
    """Answer what needs no installation; exit code 3 says that the rest needs one."""
    try:
        options = parse(arguments)
        if options.list:
            print(list_notebooks(options.profile))
            sys.exit(0)
        if not options.data:
            pick(outline(options.profile), options.only)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    sys.exit(NEEDS_INSTALLATION)


if __name__ == "__main__":
    main()
