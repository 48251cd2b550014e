"""The laws of dependency, read from every import of the repository; a breach is named by file and line."""

import ast
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "nodes", "training")
MOST_LINES, MOST_FUNCTION_LINES = 250, 60
# Only these places may name these packages.
DOORS = {
    "comfy": "nodes/host_comfy/",
    "comfy_execution": "nodes/host_comfy/",
    "comfy_extras": "nodes/host_comfy/",
    "folder_paths": "nodes/host_comfy/",
    "node_helpers": "nodes/host_comfy/",
    "server": "nodes/host_comfy/",
    "latent_preview": "nodes/host_comfy/",
    "comfy_api": "nodes/",
    "diffusers": "training/host_diffusers/",
    "transformers": "training/host_diffusers/",
    "peft": "training/host_diffusers/",
    "open_clip": "training/host_diffusers/",
}
# The storeys of the house, from the ground up; a line's rooms stand side by side and never see each other. A room is a
# folder or a file; what lies in none of a folder's own rooms belongs to the folder. Imports stay in a room or go down.
STOREYS = (
    ("core", "training/common"),
    ("nodes", "training/config", "training/diffusion", "training/miniworld/world"),
    ("training/host_diffusers",),
    ("training/data",),
    ("training/annotation", "training/engine", "training/evaluation", "training/generation"),
    ("training/finetune.py", "training/prepare.py", "training/subject.py", "training/miniworld/recipes"),
    ("training/miniworld/experiments",),
    ("training/annotate.py", "training/distill.py", "training/evaluate.py", "training/miniworld"),
    ("training/generate.py",),
)
FLOORS = {room: floor for floor, rooms in enumerate(STOREYS, start=1) for room in rooms}
MOST_FLOORS, MOST_ROOMS = 9, 16  # rooms as the top folders show them: nodes, miniworld and all commands each are one
# A participle says what happened to a thing, not what it is. Fields of classes are free: files have many as keys.
NO_NAMES = set(
    "asked drawn found given gone held kept known made meant said seen settled shown taken there told wanted".split()
)
CORE_MAY = {"torch", "einops", "safetensors"} | set(sys.stdlib_module_names)


def imports(path):
    """(line, dotted name, leading dots) of every import of a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or "", node.level


def files(room):
    return sorted((ROOT / room).rglob("*.py"))


def breaches(room, is_breach):
    found = []
    for path in files(room):
        for line, name, dots in imports(path):
            where = path.relative_to(ROOT)
            if is_breach(where, name, dots):
                found.append(f"{where}:{line} imports {'.' * dots}{name}")
    return found


def test_there_is_something_to_check():
    assert all(len(files(room)) > 5 for room in ROOMS)


def test_core_imports_torch_einops_safetensors_and_nothing_else():
    assert breaches("core", lambda where, name, dots: not dots and name.split(".")[0] not in CORE_MAY) == []


def test_dots_never_climb_out_of_core():
    assert breaches("core", lambda where, name, dots: dots > len(where.parts) - 1) == []


def test_nodes_reach_core_by_dots_only():
    assert breaches("nodes", lambda where, name, dots: not dots and name.split(".")[0] in ROOMS) == []


def test_nodes_never_import_training():
    assert breaches("nodes", lambda where, name, dots: dots == len(where.parts) and name.startswith("training")) == []


def room_of(path):
    """The room of STOREYS that a path below ROOT (of a file or a folder) lies in, or None."""
    name = path.as_posix()
    return next(
        (room for room in sorted(FLOORS, key=len, reverse=True) if name == room or name.startswith(f"{room}/")), None
    )


def imported_paths(path):
    """(line, path below ROOT) of all of ours that a file imports: a module, or the package that hands a name on."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            base = ".".join((*parts, *((node.module,) if node.module else ())))
            targets = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            place = ROOT.joinpath(*target.split("."))
            while place != ROOT and not (place.is_dir() or place.with_suffix(".py").is_file()):
                place = place.parent  # the last part was a name inside a module
            if place != ROOT:
                place = place if place.is_dir() else place.with_suffix(".py")
                yield node.lineno, place.relative_to(ROOT)


def test_every_file_has_a_storey():
    """A package's own face (`__init__.py` of training) hands nothing on and stands outside."""
    outside = [
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in files(room)
        if room_of(path.relative_to(ROOT)) is None
    ]
    assert outside == ["training/__init__.py"]


def test_imports_stay_in_their_room_or_go_down():
    found = []
    for path in (path for room in ROOMS for path in files(room)):
        here = room_of(path.relative_to(ROOT))
        for line, target in imported_paths(path):
            there = room_of(target)
            if here and there and here != there and FLOORS[there] >= FLOORS[here]:
                found.append(
                    f"{path.relative_to(ROOT)}:{line} imports {target.as_posix()}: from storey {FLOORS[here]} "
                    f"({here}) to storey {FLOORS[there]} ({there})"
                )
    assert found == []


def test_the_house_stays_small():
    """Storeys without a circle are certain from the test above; here their number, and that of the rooms."""
    rooms = {
        "commands" if room.endswith(".py") else "/".join(room.split("/")[: 2 if room.startswith("training") else 1])
        for room in FLOORS
    }
    assert len(STOREYS) <= MOST_FLOORS and len(rooms) <= MOST_ROOMS


def test_training_imports_core_by_name_itself_by_dots_and_never_nodes():
    def is_breach(where, name, dots):
        return name.split(".")[0] in ("nodes", "training") and not dots or dots > len(where.parts) - 1

    assert breaches("training", is_breach) == []


@pytest.mark.parametrize("room", ROOMS)
def test_hosts_are_named_at_their_door_only(room):
    def is_breach(where, name, dots):
        door = None if dots else DOORS.get(name.split(".")[0])
        return door is not None and not where.as_posix().startswith(door)

    assert breaches(room, is_breach) == []


def test_the_pack_imports_nothing_when_it_loads():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    assert [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))] == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_code_is_run_from_data(room):
    """No eval or exec, no unpickling, no packages installed at run time."""
    found = []
    for path in files(room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            loads_freely = called == "torch.load" and not any(
                keyword.arg == "weights_only" and ast.unparse(keyword.value) == "True" for keyword in node.keywords
            )
            if called in ("eval", "exec", "pickle.load", "pickle.loads", "os.system") or loads_freely:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {called}")
    assert found == []


@pytest.mark.parametrize("room", ROOMS)
def test_files_and_functions_stay_small(room):
    found = []
    for path in files(room):
        text = path.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        if lines > MOST_LINES:
            found.append(f"{path.relative_to(ROOT)} has {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (
                node.end_lineno - node.lineno >= MOST_FUNCTION_LINES
            ):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} is over {MOST_FUNCTION_LINES} lines")
    assert found == []


@pytest.mark.parametrize("room", ROOMS)
def test_sources_are_plain_text_on_every_system(room):
    """Windows' cp1252 must read them: tools of the registry open sources with it."""
    found = []
    for path in files(room):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.encode("cp1252", errors="replace").decode("cp1252") != line:
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert found == []


def test_both_lists_of_requirements_are_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert listed == project["dependencies"]
    assert not any(mark in name for name in listed for mark in "=<>")


def test_the_training_extra_has_every_package_that_training_imports():
    """But for those that single options need, whose errors name them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = {*project["dependencies"], *project["optional-dependencies"]["training"]}
    of_options = {"bitsandbytes", "insightface", "open_clip", "spacy"}
    others = of_options | {"core", "pydantic_core"} | sys.stdlib_module_names
    imported = {name.split(".")[0] for path in files("training") for _, name, dots in imports(path) if not dots}
    assert {"pillow" if name == "PIL" else name for name in imported} - listed - others == set()


def bound_names(path):
    """(line, name) of every variable and argument that a file binds; fields of classes are not among them."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    fields = {
        id(statement.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in fields:
            yield node.lineno, node.id


@pytest.mark.parametrize("room", ROOMS)
def test_names_say_what_they_hold(room):
    riddles = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in files(room)
        for line, name in bound_names(path)
        if name in NO_NAMES
    ]
    assert riddles == []


def test_bound_names_are_variables_and_arguments(tmp_path):
    (tmp_path / "a.py").write_text(
        "class A:\n    kept: int = 1\n\n\ndef f(told, *, seen):\n    for drawn in told: found = seen\n"
    )
    assert sorted(name for _, name in bound_names(tmp_path / "a.py")) == ["drawn", "found", "seen", "told"]
