from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from hexapla.parallel import clusters
from hexapla.parallel.clusters import Config, Sharding, World, environment, place
from hexapla.schema import UserError

NAMES = ("cpu", "fsdp", "gpus", "nodes", "single")
HERE = Path("configs/accelerate/some.yaml")
SLURM = {"SLURM_NNODES": "3", "SLURM_NODEID": "2", "MASTER_ADDR": "first", "MASTER_PORT": "4321"}


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def _launchers_own(monkeypatch, name, processes, machines):
    """What accelerate's launcher would put into the environment, and the config that it read."""
    from accelerate.commands import launch as launcher
    from accelerate.utils.launch import prepare_multi_gpu_env

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = [
        "--config_file", str(clusters.FOLDER / f"{name}.yaml"), "--num_processes", str(processes),
        "--num_machines", str(machines), "--machine_rank", "1", "--main_process_ip", "first",
        "--main_process_port", "0" if machines == 1 else "4321", "-m", "task",
    ]  # fmt: skip
    given = launcher._validate_launch_command(launcher.launch_command_parser().parse_args(arguments))[0]
    return prepare_multi_gpu_env(given), given


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_reads_what_is_shipped(monkeypatch, name):
    config = clusters.read(name)[1]
    given = _launchers_own(monkeypatch, name, 4, 2)[1]
    assert given.use_fsdp == (config.distributed_type == "FSDP")
    assert given.multi_gpu == (config.distributed_type == "MULTI_GPU")
    assert given.use_cpu == config.use_cpu
    assert given.mixed_precision == "no"


def test_several_processes_are_told_what_accelerate_would_tell(monkeypatch):
    config = clusters.read("fsdp")[1]
    theirs = _launchers_own(monkeypatch, "fsdp", 4, 2)[0]
    ours = environment(config, World(2, 2, 1, "first", 4321), 0, {})
    both = {name: value for name, value in ours.items() if name.startswith(("FSDP", "ACCELERATE"))}
    assert {name: theirs.get(name) for name in both} == both


@pytest.mark.filterwarnings("ignore:sharding_strategy is deprecated")
def test_fsdp_is_what_accelerate_makes_of_it(monkeypatch):
    from accelerate.utils import FullyShardedDataParallelPlugin

    config = clusters.read("fsdp")[1]
    plugins = []
    for told in (
        _launchers_own(monkeypatch, "fsdp", 4, 2)[0],
        environment(config, World(2, 2, 1, "first", 4321), 0, {}),
    ):
        with monkeypatch.context() as patch:
            for name, value in told.items():
                patch.setenv(name, value)
            plugins.append(FullyShardedDataParallelPlugin())
    theirs, ours = ({k: str(v) for k, v in vars(plugin).items()} for plugin in plugins)
    for unused in ("sync_module_states", "use_orig_params", "param_init_fn", "min_num_params"):
        theirs.pop(unused, None)
        ours.pop(unused, None)
    assert ours == theirs
    assert ours["fsdp_version"] == "2"
    assert ours["reshard_after_forward"] == "True"


@given(st.integers(1, 8), st.integers(1, 5))
def test_every_process_has_its_own_number(gpus, machines):
    config = Config(num_processes=-1, distributed_type="MULTI_GPU", num_machines=-1)
    ranks = []
    for machine in range(machines):
        told = {"NNODES": str(machines), "NODE_RANK": str(machine), "MASTER_ADDR": "first"}
        world = place(HERE, config, gpus, told)
        for local in range(world.processes):
            found = environment(config, world, local, told)
            assert (found["LOCAL_RANK"], found["LOCAL_WORLD_SIZE"]) == (str(local), str(gpus))
            assert found["WORLD_SIZE"] == str(gpus * machines)
            ranks.append(int(found["RANK"]))
    assert ranks == list(range(gpus * machines))


def test_slurm_says_which_machine_this_is():
    config = clusters.read("nodes")[1]
    assert place(HERE, config, 4, SLURM) == World(4, 3, 2, "first", 4321)
    told = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "other"}
    assert place(HERE, config, 4, SLURM | told) == World(4, 2, 1, "other", 4321)
    assert place(HERE, config, 4, told).port == 29500


def test_a_config_for_one_machine_is_not_moved_by_slurm():
    world = place(HERE, clusters.read("gpus")[1], 4, SLURM)
    assert world[:4] == (4, 1, 0, "127.0.0.1")
    assert place(HERE, clusters.read("gpus")[1], 4, SLURM).port != 4321


def test_a_config_may_name_its_machines():
    config = Config(8, "MULTI_GPU", num_machines=2, machine_rank=1, main_process_ip="a", main_process_port=9)
    assert place(HERE, config, 4, {}) == World(4, 2, 1, "a", 9)
    assert place(HERE, config, 4, {"NODE_RANK": "0"}).machine == 0


@pytest.mark.parametrize(
    ("config", "gpus", "told", "line"),
    [
        (Config(-1, "MULTI_GPU"), 0, {}, "wants GPUs, and this machine shows none"),
        (Config(4, "MULTI_GPU"), 2, {}, "num_processes: 4 on this machine, which has 2 GPUs"),
        (Config(5, "MULTI_GPU", num_machines=2), 8, {}, "num_processes: 5 do not divide among 2 machines"),
        (Config(-1, "MULTI_GPU", num_machines=-1), 2, {}, "NNODES is not set (Slurm's srun sets it)"),
        (Config(-1, num_machines=-1), 2, {"NNODES": "2"}, "NODE_RANK is not set (Slurm's srun sets it)"),
        (Config(-1, num_machines=-1), 2, {"NNODES": "2", "NODE_RANK": "1"}, "MASTER_ADDR is not set; see"),
        (Config(-1, num_machines=-1), 2, {"NNODES": "2", "NODE_RANK": "2"}, "this is machine 2 of 2"),
        (
            Config(-1, num_machines=-1),
            2,
            {"NNODES": "two"},
            "NNODES or SLURM_NNODES is 'two', wants a number",
        ),
    ],
)
def test_what_is_not_there_is_named(config, gpus, told, line):
    with pytest.raises(UserError, match="some.yaml") as caught:
        place(HERE, config, gpus, told)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("num_processes: all", "num_processes: wants a whole number, got 'all'"),
        ("num_processes: 0", "num_processes: must be at least 1, or -1 to leave it open"),
        ("num_processes: -1\nuse_cpu: true", "num_processes: -1 counts GPUs; without them it wants a number"),
        (
            "num_processes: 2\nuse_cpu: true\ndistributed_type: FSDP",
            "distributed_type: FSDP wants GPUs; accelerate passes over it without a word",
        ),
        ("num_processes: 2\nmixed_precision: bf16", "mixed_precision: 'bf16' is not one of no"),
        ("num_processes: 2\nnum_process: 2", "num_process: unknown key; did you mean 'num_processes'?"),
        ("num_processes: 2\nfsdp_config:\n  fsdp_version: 1", "fsdp_config.fsdp_version: 1 is not one of 2"),
    ],
)
def test_a_config_that_does_not_fit_is_one_line(tmp_path, monkeypatch, text, line):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / clusters.FOLDER
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        clusters.read("mine")
    assert str(caught.value) == f"configs/accelerate/mine.yaml: {line}"


def test_away_from_the_root_nothing_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"single\.yaml: not found; run from the repository's root"):
        clusters.read("single")


def test_what_accelerate_config_writes_is_understood(tmp_path, monkeypatch):
    from accelerate.commands.config.config_args import ClusterConfig

    monkeypatch.chdir(tmp_path)
    (tmp_path / clusters.FOLDER).mkdir(parents=True)
    written = ClusterConfig(
        compute_environment="LOCAL_MACHINE", distributed_type="FSDP", mixed_precision="no", use_cpu=False,
        debug=False, num_processes=4, gpu_ids="all", num_machines=2, machine_rank=1, main_process_ip="first",
        main_process_port=99, rdzv_backend="static", enable_cpu_affinity=False,
        fsdp_config={
            "fsdp_version": 2, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_transformer_layer_cls_to_wrap": "BertLayer", "fsdp_reshard_after_forward": False,
            "fsdp_state_dict_type": "SHARDED_STATE_DICT", "fsdp_offload_params": True,
            "fsdp_cpu_ram_efficient_loading": True, "fsdp_activation_checkpointing": True,
        },
    )  # fmt: skip
    written.to_yaml_file(tmp_path / clusters.FOLDER / "mine.yaml")
    config = clusters.read("mine")[1]
    assert config.fsdp_config == Sharding(
        2, "TRANSFORMER_BASED_WRAP", "BertLayer", False, "SHARDED_STATE_DICT", True, True, True
    )
    assert place(HERE, config, 2, {}) == World(2, 2, 1, "first", 99)


@pytest.mark.parametrize(("processes", "share"), [(1, 12), (2, 6), (5, 2), (99, 1)])
def test_cores_are_shared_unless_the_user_says_otherwise(monkeypatch, processes, share):
    monkeypatch.setattr(clusters, "_cores", lambda: 12)
    world = World(processes, 1, 0, "here", 1)
    assert environment(Config(processes), world, 0, {})["OMP_NUM_THREADS"] == str(share)
    assert "OMP_NUM_THREADS" not in environment(Config(processes), world, 0, {"OMP_NUM_THREADS": "5"})
