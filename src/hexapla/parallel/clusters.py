"""A file of `configs/accelerate`: how many processes, where, and what each finds in its environment.

The format is accelerate's (`accelerate config` writes it), and so is what the processes are told.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hexapla import strict
from hexapla.schema import UserError

FOLDER = Path("configs/accelerate")

_OPEN = -1
"""A number that the file leaves open; accelerate's own mark."""
_PORT = 29500
"""The one that torch's and accelerate's launchers take."""


@dataclass(frozen=True)
class Sharding:
    """What FSDP cuts up (accelerate's `fsdp_config`)."""

    fsdp_version: Literal[2] = 2
    fsdp_auto_wrap_policy: Literal["TRANSFORMER_BASED_WRAP", "NO_WRAP"] = "TRANSFORMER_BASED_WRAP"
    fsdp_transformer_layer_cls_to_wrap: str = ""
    fsdp_reshard_after_forward: bool = True
    fsdp_state_dict_type: Literal["FULL_STATE_DICT", "SHARDED_STATE_DICT"] = "FULL_STATE_DICT"
    fsdp_offload_params: bool = False
    fsdp_cpu_ram_efficient_loading: bool = False
    fsdp_activation_checkpointing: bool = False


@dataclass(frozen=True)
class Config:
    """The keys of accelerate's format that mean something here; others may only say what holds anyway."""

    num_processes: int
    """Of all machines together; -1: one for each GPU."""
    distributed_type: Literal["NO", "MULTI_CPU", "MULTI_GPU", "FSDP"] = "NO"
    use_cpu: bool = False
    num_machines: int = 1
    """-1: as the environment says."""
    machine_rank: int = 0
    main_process_ip: str = ""
    main_process_port: int | None = None
    fsdp_config: Sharding | None = None
    mixed_precision: Literal["no"] = "no"
    compute_environment: Literal["LOCAL_MACHINE"] = "LOCAL_MACHINE"
    gpu_ids: Literal["all"] = "all"
    rdzv_backend: Literal["static"] = "static"
    debug: Literal[False] = False
    downcast_bf16: Literal["no", False] = "no"
    enable_cpu_affinity: Literal[False] = False
    same_network: bool = True
    main_training_function: str = "main"
    tpu_env: tuple[str, ...] = ()
    tpu_use_cluster: Literal[False] = False
    tpu_use_sudo: Literal[False] = False

    def __post_init__(self) -> None:
        for name in ("num_processes", "num_machines"):
            if getattr(self, name) < 1 and getattr(self, name) != _OPEN:
                raise ValueError(f"{name}: must be at least 1, or {_OPEN} to leave it open")
        if self.on_cpu and self.num_processes == _OPEN:
            raise ValueError(f"num_processes: {_OPEN} counts GPUs; without them it wants a number")
        if self.on_cpu and self.distributed_type == "FSDP":
            raise ValueError("distributed_type: FSDP wants GPUs; accelerate passes over it without a word")

    @property
    def on_cpu(self) -> bool:
        return self.use_cpu or self.distributed_type == "MULTI_CPU"


class World(NamedTuple):
    """How many processes there are, and where."""

    processes: int
    """On this machine, as on each."""
    machines: int
    machine: int
    address: str
    """Of the first machine."""
    port: int

    @property
    def size(self) -> int:
        return self.processes * self.machines


def read(name: str) -> tuple[Path, Config]:
    """The config of this name, and where it lies.

    Raises:
        UserError: there is none, or it does not fit the format.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        mend = f"there are: {known}" if known else "run from the repository's root"
        raise UserError(f"{path}: not found; {mend}")
    config: Config = strict.load(path, Config)
    return path, config


def place(path: Path, config: Config, gpus: int, variables: Mapping[str, str]) -> World:
    """Where the processes go.

    Args:
        path: of the config, for messages.
        config: what it says.
        gpus: that this machine has; each of several must have as many.
        variables: of the environment; on which machine this is, they know better than the config.

    Raises:
        UserError: GPUs or variables that the config counts on are not there.
    """
    open_machines = config.num_machines == _OPEN
    machines = config.num_machines
    if open_machines:
        machines = _number(path, variables, ("NNODES", "SLURM_NNODES"), "")
    here = _share(path, config, gpus, machines)
    if machines == 1:
        return World(here, 1, 0, "127.0.0.1", _free_port())
    told = "" if open_machines else str(config.machine_rank)
    machine = _number(path, variables, ("NODE_RANK", "SLURM_NODEID"), told)
    if not 0 <= machine < machines:
        raise UserError(f"{path}: this is machine {machine} of {machines}; they count from 0")
    address = _variable(path, variables, ("MASTER_ADDR",), config.main_process_ip)
    port = _number(path, variables, ("MASTER_PORT",), str(config.main_process_port or _PORT))
    return World(here, machines, machine, address, port)


def _share(path: Path, config: Config, gpus: int, machines: int) -> int:
    """Processes on each machine."""
    if not config.on_cpu and not gpus:
        raise UserError(f"{path}: wants GPUs, and this machine shows none; set `launch:` to single or cpu")
    if config.num_processes == _OPEN:
        return gpus
    here, rest = divmod(config.num_processes, machines)
    if rest:
        raise UserError(
            f"{path}: num_processes: {config.num_processes} do not divide among {machines} machines"
        )
    if not config.on_cpu and here > gpus:
        raise UserError(f"{path}: num_processes: {here} on this machine, which has {gpus} GPUs")
    return here


def _variable(path: Path, variables: Mapping[str, str], names: tuple[str, ...], otherwise: str) -> str:
    found = next((variables[name] for name in names if variables.get(name)), otherwise)
    if not found:
        slurm = " (Slurm's srun sets it)" if len(names) > 1 else ""
        raise UserError(f"{path}: several machines, and {names[0]} is not set{slurm}; see docs/clusters.md")
    return found


def _number(path: Path, variables: Mapping[str, str], names: tuple[str, ...], otherwise: str) -> int:
    found = _variable(path, variables, names, otherwise)
    if not found.isdecimal():
        raise UserError(f"{path}: {' or '.join(names)} is '{found}', wants a number")
    return int(found)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def environment(config: Config, world: World, local: int, variables: Mapping[str, str]) -> dict[str, str]:
    """What a process finds beside the variables that are there already.

    Args:
        config: for the sharding.
        world: where the processes are.
        local: the process's number on its machine.
        variables: of the environment; a thread count that stands there is left alone.
    """
    told: dict[str, Any] = {
        "RANK": world.machine * world.processes + local,
        "LOCAL_RANK": local,
        "WORLD_SIZE": world.size,
        "LOCAL_WORLD_SIZE": world.processes,
        "MASTER_ADDR": world.address,
        "MASTER_PORT": world.port,
        "ACCELERATE_MIXED_PRECISION": config.mixed_precision,
    }
    if "OMP_NUM_THREADS" not in variables:
        # Each would take all cores, and the launchers of torch and accelerate give each but one.
        told["OMP_NUM_THREADS"] = max(1, _cores() // world.processes)
    if config.distributed_type == "FSDP":
        sharding = config.fsdp_config or Sharding()
        shards = {field.name.upper(): getattr(sharding, field.name) for field in fields(sharding)}
        shards["FSDP_TRANSFORMER_CLS_TO_WRAP"] = shards.pop("FSDP_TRANSFORMER_LAYER_CLS_TO_WRAP")
        told |= {"ACCELERATE_USE_FSDP": True} | {name: value for name, value in shards.items() if value != ""}
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in told.items()
    }


def _cores() -> int:
    """Those that this process may use, which in a container or a Slurm job are not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
