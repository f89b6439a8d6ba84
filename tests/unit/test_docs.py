"""Do the docs say what the code does, and do their examples run?

A fenced block marked `{run}` is executed, page by page from top to bottom, as the module `shop.tasks`: "python" blocks
as they stand, "pycon" blocks with their answers compared. Broker and store are then `immediate` and `memory`. In the
tutorial "console {run}" blocks are typed into a shell, and "{write ...}" and "{append ...}" blocks make its files.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import io
import os
import re
import subprocess
import sys
import unittest
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.apps import apps
from django.core.management import BaseCommand, CommandParser, load_command_class
from django.dispatch import Signal

from django_tasks import conf, exceptions, options, signals, states
from django_tasks.api.documents import whole
from django_tasks.api.groups import group_document, member_document, page_links
from django_tasks.api.serializers import Call, MemberPage, Search
from django_tasks.api.urls import urlpatterns
from django_tasks.backends import BROKERS
from django_tasks.context import Request
from django_tasks.management.tasks import SUBCOMMANDS, schedule
from django_tasks.message import Delivery, Message
from django_tasks.models import TaskGroup, TaskResult
from django_tasks.plan import Outcome, Result
from django_tasks.pools import POOLS
from django_tasks.registry import tasks
from django_tasks.result import AsyncResult
from django_tasks.results import STORES
from django_tasks.workflows import Member

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "django_tasks"
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
TUTORIAL = DOCS / "tutorial" / "first-task.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

SETTINGS = {
    "BROKERS": {"default": {"BACKEND": "immediate"}},
    "RESULTS": {"default": {"BACKEND": "memory"}},
}
FENCE = re.compile(r"^```(?P<language>\w*)(?: \{(?P<mark>[^}]*)\})?$")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (?P<title>.+)$")
# A word in capitals between backticks is a key of the setting, a state, or one of these.
CAPITALS = {
    *(
        "CACHES",
        "DATABASES",
        "INSTALLED_APPS",
        "LOGGING",
        "TASKS",
        "CONN_MAX_AGE",
        "SECRET_KEY",
        "SECRET_KEY_FALLBACKS",
        "REST_FRAMEWORK",
        "ENGINE",
        "SILENCED_SYSTEM_CHECKS",
    ),
    *(
        "DEFAULT_PERMISSION_CLASSES",
        "DEFAULT_AUTHENTICATION_CLASSES",
        "DISABLE_SERVER_SIDE_CURSORS",
        "USE_TZ",
        "TIME_ZONE",
    ),
    *(
        "SIGTERM",
        "SIGINT",
        "SIGQUIT",
        "SIGKILL",
        "SIGUSR1",
        "SIGUSR2",
        "SIGALRM",
        "TERM",
        "INT",
        "QUIT",
        "USR1",
        "USR2",
        "HUP",
    ),
    *("NOTIFY", "LISTEN", "SELECT", "UPDATE", "INSERT", "DELETE", "COMMIT", "BEGIN", "IMMEDIATE", "WAL", "DEBUG"),
    *(
        "SQL",
        "JSON",
        "CELERY_BEAT_SCHEDULE",
        "GET",
        "POST",
        "ARGS",
        "ONCE",
        "PYTHON",
        "UUID",
        "FINAL",
        "FAILED",
        "EXCEPTION",
        "ALL",
    ),
}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """The number of the fence's line, counted from 1."""
    language: str
    mark: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    opened: tuple[int, str, str] | None = None
    inside: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened, inside = (number, fence["language"], fence["mark"] or ""), []
        elif opened is not None and line == "```":
            yield Block(page, opened[0], opened[1], opened[2], "\n".join(inside) + "\n")
            opened = None
        else:
            inside.append(line)
    assert opened is None, f"{page}:{opened} is never closed"


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def first_cells(page: Path) -> list[list[str]]:
    """Return the cells of all table rows that begin with something in backticks."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in prose_of(page).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


def names_in_tables(page: Path) -> list[str]:
    """Return the names that the first cells of a page's tables explain: `name`, `--name`, `name()`, `a` / `b`."""
    return [name.strip("()") for row in first_cells(page) for name in re.findall(r"`([^`]+)`", row[0])]


def anchors_of(page: Path) -> set[str]:
    """Return what may stand after the # of a link to a page, as GitHub makes it from headings."""
    titles = [found["title"] for line in prose_of(page).splitlines() if (found := HEADING.match(line))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# Pages and links


def test_the_index_lists_every_page() -> None:
    listed = {found["target"] for found in LINK.finditer((DOCS / "index.md").read_text()) if found["target"]}
    there = {page.relative_to(DOCS).as_posix() for page in PAGES if page.is_relative_to(DOCS)}
    assert {target for target in listed if "#" not in target and "../" not in target} == there - {"index.md"}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for found in LINK.finditer(prose_of(page)):
        target = found["target"] or found["image"]
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors_of(there), f"{target}: no such heading"


@each_page
def test_one_heading_opens_the_page(page: Path) -> None:
    lines = prose_of(page).splitlines()
    assert lines[0].startswith("# ")
    assert sum(line.startswith("# ") for line in lines) == 1


# Examples


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.mark == "run" and block.language in {"python", "pycon"}]


@pytest.fixture
def shop_tasks() -> Iterator[ModuleType]:
    """Give a module in which the examples of a page are run, as if they stood in the tasks.py of an app "shop"."""
    package, module = ModuleType("shop"), ModuleType("shop.tasks")
    package.__path__ = []  # what makes it a package
    vars(package)["tasks"] = module
    known = dict(tasks)
    there = {name: sys.modules.get(name) for name in ("shop", "shop.tasks")}
    sys.modules.update({"shop": package, "shop.tasks": module})
    yield module
    tasks.clear()
    tasks.update(known)
    for name, was in there.items():
        if was is None:
            del sys.modules[name]
        else:
            sys.modules[name] = was


@pytest.mark.django_db
@pytest.mark.parametrize(
    "page", [page for page in PAGES if runnable(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_examples_run(page: Path, shop_tasks: ModuleType, settings: Any) -> None:
    settings.DJANGO_TASKS = SETTINGS
    space = vars(shop_tasks)
    for block in runnable(page):
        if block.language == "python":
            # Blank lines first, so that a traceback names the line of the page.
            code = compile("\n" * block.line + block.text, str(page), "exec", dont_inherit=True)
            exec(code, space)
            if "urlpatterns" in space:
                settings.ROOT_URLCONF = shop_tasks.__name__
        else:
            _talk(block, space)
    cases = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromModule(shop_tasks).run(cases)
    assert cases.wasSuccessful(), [trace for _, trace in (*cases.errors, *cases.failures)]


def _talk(block: Block, space: dict[str, Any]) -> None:
    """Type a session in, and compare what is answered."""
    session = doctest.DocTestParser().get_doctest(block.text, {}, block.place, str(block.page), block.line)
    assert session.examples, f"{block.place} has no line that begins with >>>"
    session.globs = space
    said = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    failed = runner.run(session, out=said.write, clear_globs=False).failed
    assert not failed, said.getvalue()


@each_page
def test_python_blocks_are_python_and_import_what_exists(page: Path) -> None:
    for block in blocks_of(page):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text, block.place)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "django_tasks":
                module = importlib.import_module(node.module)
                for alias in node.names:
                    found = hasattr(module, alias.name) or _is_module(f"{node.module}.{alias.name}")
                    assert found, f"{block.place}: {node.module} has no {alias.name}"


def _is_module(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True


def test_the_tutorial_from_an_empty_folder(tmp_path: Path) -> None:
    """Every command of the tutorial answers what the page says."""
    bare = {key: value for key, value in os.environ.items() if not key.startswith("DJANGO_")}
    environment = {
        **bare,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "default",
        "COLUMNS": "120",
    }
    for block in blocks_of(TUTORIAL):
        action, _, name = block.mark.partition(" ")
        if action == "write":
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif action == "append":
            with (tmp_path / name).open("a") as file:
                file.write(block.text)
        elif action == "run" and block.language == "console":
            _type(block, tmp_path, environment)


def _type(block: Block, folder: Path, environment: dict[str, str]) -> None:
    """Type the commands of a block, and compare what they say; `...` stands for anything."""
    for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, flags=re.MULTILINE):
        done = subprocess.run(
            command,
            shell=True,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert done.returncode == 0, f"{block.place}: {command}\n{done.stdout}"
        assert doctest.OutputChecker().check_output(expected, done.stdout, flags), (
            f"{block.place}: {command}\nexpected:\n{expected}\nsaid:\n{done.stdout}"
        )


def test_the_example_plug_in_keeps_its_contract(tmp_path: Path) -> None:
    """The store of the page on plug-ins passes the suite that the page names."""
    page = DOCS / "how-to" / "write-a-plug-in.md"
    module = tmp_path / "test_folder_store.py"
    module.write_text("\n".join(block.text for block in runnable(page)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [*command, f"--rootdir={ROOT}", str(module)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr


# What the pages name


def _settings_words() -> set[str]:
    """Return every key that may stand in DJANGO_TASKS, at any level: those of plug-ins are what their code reads."""
    files = [
        path for pattern in ("backends/**/*.py", "results/**/*.py", "redis_*.py") for path in PACKAGE.glob(pattern)
    ]
    code = "\n".join(path.read_text() for path in files)
    read = set(re.findall(r"""options(?:\.get\(|\[)["']([A-Z_]+)["']""", code))
    known = {entry.name.upper() for entry in fields(conf.Settings)}
    of_entries = {"DJANGO_TASKS", "BACKEND", "LOCATION", "OPTIONS", "BROKER", "PRIORITY", "EXPIRES"}
    return known | of_entries | conf.EXCHANGE_KEYS | read


@each_page
def test_words_in_capitals_are_keys_or_states(page: Path) -> None:
    # The names of Celery's settings are in small letters; the environment's are told by the tools that read them.
    words = set(re.findall(r"`([A-Z][A-Z0-9_]{2,})`", prose_of(page)))
    unknown = words - _settings_words() - states.ALL - {"PROGRESS"} - CAPITALS
    assert not {word for word in unknown if not word.startswith("DJANGO_TASKS_TEST_")}


@each_page
def test_settings_in_examples_exist(page: Path) -> None:
    for block in blocks_of(page):
        if block.language != "python":
            continue
        tree = ast.parse(block.text)
        # A function that a setting names is one to the check, whatever it does.
        known: dict[str, Any] = {"timedelta": timedelta, "re": re, "environ": {"TASKS_KEY": "A" * 43 + "="}}
        known |= {node.name: print for node in tree.body if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree):
            if _assigns_settings(node):
                assert isinstance(node, ast.Assign | ast.keyword)
                given = eval(compile(ast.Expression(node.value), block.place, "eval"), known)
                found = list(conf.problems(given))
                assert not found, f"{block.place}: {found}"


def _assigns_settings(node: ast.AST) -> bool:
    if isinstance(node, ast.keyword):
        return node.arg == "DJANGO_TASKS" and isinstance(node.value, ast.Dict)
    named = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id
    return named == "DJANGO_TASKS"


@each_page
def test_options_of_runworker_exist(page: Path) -> None:
    known = {option for action in _parser()._actions for option in action.option_strings}
    for line in page.read_text().splitlines():
        _, found, told = line.partition("runworker")
        if found:
            asked = set(re.findall(r"(?<![\w-])(--?[a-zA-Z][\w-]*)", told.split("`")[0]))
            assert asked <= known, f"{line!r} names {asked - known}"


@each_page
def test_signals_that_are_named_exist(page: Path) -> None:
    if page.name == "move-from-celery.md":  # it names Celery's too
        return
    named = set(re.findall(r"`signals\.(\w+)`|`((?:task|worker|child)_\w+ed|worker_ready)`", prose_of(page)))
    assert {one or other for one, other in named} <= _signals().keys()


@each_page
def test_modules_that_are_named_exist(page: Path) -> None:
    for path in re.findall(r"`((?:django_tasks/)?(?:\w+/)*\w+\.py)`", prose_of(page)):
        if page.is_relative_to(DOCS / "explanation"):
            found = (PACKAGE / path).exists() or (ROOT / path).exists()
            assert found, f"{path} does not exist"


# The reference, against the code


def test_reference_settings() -> None:
    told = {row[0].strip("`"): row[1].strip("`") for row in first_cells(REFERENCE / "settings.md") if len(row) == 3}
    defaults = conf.Settings()
    known = {entry.name.upper(): getattr(defaults, entry.name) for entry in fields(conf.Settings)}
    assert {key: told.get(key) for key in known} == {key: _shown(value) for key, value in known.items()}


def _shown(value: Any) -> str:
    text = repr(value).replace("datetime.", "").replace("'", '"')
    return re.sub(r"(?<=\d)\.0\b", "", text)


def test_reference_settings_of_queues_and_plug_ins() -> None:
    page = (REFERENCE / "settings.md").read_text()
    assert not {word for word in _settings_words() if f"`{word}`" not in page}
    assert not {name for name in (*BROKERS, *STORES) if f'`"{name}"`' not in page}


def test_reference_task_options() -> None:
    assert sorted(names_in_tables(REFERENCE / "task-options.md")) == sorted(
        options.DECLARATION | {"name", "bind", "base"}
    )


def test_reference_call_options() -> None:
    assert sorted(set(names_in_tables(REFERENCE / "call-options.md"))) == sorted(options.CALL_OPTIONS)


def test_reference_request() -> None:
    members = {entry.name for entry in fields(Request)} | _public(Request)
    inner = {"message", "report", "directive", "following", "task", "way"}
    assert sorted(names_in_tables(REFERENCE / "request.md")) == sorted((members - inner) | {"task"})


def test_reference_result() -> None:
    explained = set(names_in_tables(REFERENCE / "result.md"))
    assert explained >= _public(AsyncResult) | {"id", "store"}
    assert explained >= {entry.name for entry in fields(Result)}


def test_reference_states() -> None:
    assert set(names_in_tables(REFERENCE / "states.md")) == states.ALL


def _signals() -> dict[str, Signal]:
    return {name: value for name, value in vars(signals).items() if isinstance(value, Signal)}


def test_reference_signals() -> None:
    assert sorted(names_in_tables(REFERENCE / "signals.md")) == sorted(_signals())


def test_reference_exceptions() -> None:
    known = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and value.__module__ == exceptions.__name__
    }
    assert sorted(names_in_tables(REFERENCE / "exceptions.md")) == sorted(known)


def _parser() -> ArgumentParser:
    return load_command_class("django_tasks", "runworker").create_parser("manage.py", "runworker")


def _sections(page: Path) -> dict[str, str]:
    """Return what a page says below each heading of any level."""
    parts = re.split(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _options_of(command: BaseCommand) -> list[str]:
    parser = CommandParser()
    command.add_arguments(parser)
    actions = [action for action in parser._actions if action.dest not in {"help", "node_number"}]
    return sorted(option for action in actions for option in action.option_strings)


COMMANDS = {
    **{name: load_command_class("django_tasks", name) for name in ("runworker", "beat")},
    **{name: command() for name, command in SUBCOMMANDS.items() if name != "worker"},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_reference_commands(name: str) -> None:
    section = _sections(REFERENCE / "commands.md")[name]
    told = re.findall(r"`(-[\w-]+)`", "".join(re.findall(r"^\|([^|]*)\|", section, flags=re.MULTILINE)))
    assert sorted(told) == _options_of(COMMANDS[name])


def test_reference_commands_lists_every_subcommand() -> None:
    assert SUBCOMMANDS.keys() <= _sections(REFERENCE / "commands.md").keys()


def test_reference_commands_lists_every_action_on_schedules() -> None:
    section = _sections(REFERENCE / "commands.md")["schedule"]
    known = schedule.Command().create_parser("manage.py", "schedule")._actions
    actions = next(action.choices for action in known if action.dest == "action")
    assert set(re.findall(r"^\| `([\w-]+)", section, flags=re.MULTILINE)) == set(actions or ())


def test_reference_commands_lists_every_command() -> None:
    there = {path.stem for path in (PACKAGE / "management" / "commands").glob("[a-z]*.py")}
    assert there == set(re.findall(r"^## (\w+)$", (REFERENCE / "commands.md").read_text(), flags=re.MULTILINE))


def test_reference_checks() -> None:
    code = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    known = set(re.findall(r"django_tasks\.([EW]\d{3})", code))
    assert set(names_in_tables(REFERENCE / "checks.md")) == {f"django_tasks.{one}" for one in known}


def test_reference_models() -> None:
    page = (REFERENCE / "models.md").read_text()
    for model in apps.get_app_config("django_tasks").get_models():
        section = re.search(rf"^## {model.__name__}$(.*?)(?=^## |\Z)", page, flags=re.DOTALL | re.MULTILINE)
        assert section, f"no section {model.__name__}"
        told = re.findall(r"^\| `(\w+)`", section[1], flags=re.MULTILINE)
        assert told == [field.name for field in model._meta.concrete_fields]


def test_reference_logging() -> None:
    code = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    known = set(re.findall(r"""getLogger\(["'](django_tasks[\w.]*)["']\)""", code))
    assert set(names_in_tables(REFERENCE / "logging.md")) >= known


def test_reference_rest_api() -> None:
    page = REFERENCE / "rest-api.md"
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page.read_text(), flags=re.DOTALL | re.MULTILINE))
    told = {title: re.findall(r"^\| `(\w+)`", text, flags=re.MULTILINE) for title, text in sections.items()}
    assert told["Starting a task"] == list(Call().fields)
    assert told["Listing"] == list(Search().fields)
    assert told["One task"] == list(whole(TaskResult(error_type="ValueError"), "", payload=True))
    addresses = {(row[0].strip("`"), row[1].strip("`")) for row in first_cells(page) if "tasks/" in row[0]}
    assert told["Parameters of a group"] == list(MemberPage().fields)
    group, member = group_document(TaskGroup(group_id="g", size=1), ""), member_document(Member(0, "", "PENDING"))
    assert told["One group"] == [*group, *page_links("", 0, 1, 1), "members", *member]
    pattern = re.compile("<path:(task|group)_id>")
    known = {(pattern.sub("<id>", f"tasks/{one.pattern}"), str(one.name)) for one in urlpatterns}
    assert addresses == known


def test_how_to_choose_a_pool_names_every_pool() -> None:
    page = (DOCS / "how-to" / "choose-a-pool.md").read_text()
    assert not {name for name in POOLS if f"`{name}`" not in page}


def test_messages_and_deliveries_are_drawn_as_they_are() -> None:
    """The architecture page names the fields that it speaks of."""
    page = prose_of(DOCS / "explanation" / "architecture.md")
    known = {entry.name for kind in (Message, Delivery, Outcome, Result) for entry in fields(kind)}
    told = set(re.findall(r"`(?:Message|Delivery|Outcome|Result)\.(\w+)`", page))
    assert told <= known | _public(Delivery) | _public(Outcome)


def _public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_") and not name.isupper()}
