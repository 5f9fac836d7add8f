"""How XLA is made fast: primitives that equal public functions of JAX, and how their programs are compiled and run."""

from nasi_jax.programs._numerics import numerics, set_numerics
from nasi_jax.programs._switch import switch
from nasi_jax.programs.compiler import NetworkProgram, compiler_options, jit_network, run_by_programs
from nasi_jax.programs.convolution import conv, depthwise_conv, saves_products
from nasi_jax.programs.execution import Capability, Discrete, Execution, choose_execution, peak_memory
from nasi_jax.programs.fan import add, fan_out
from nasi_jax.programs.pool import average_pool, max_pool
from nasi_jax.programs.population import Population, member, stack
from nasi_jax.programs.tracing import is_traced

__all__ = [
    "Capability",
    "Discrete",
    "Execution",
    "NetworkProgram",
    "Population",
    "add",
    "average_pool",
    "choose_execution",
    "compiler_options",
    "conv",
    "depthwise_conv",
    "fan_out",
    "is_traced",
    "jit_network",
    "max_pool",
    "member",
    "numerics",
    "peak_memory",
    "run_by_programs",
    "saves_products",
    "set_numerics",
    "stack",
    "switch",
]
