"""Functions of kernels whose warps have roles, and of what launches these: written out in the files that call them."""

ROLES = {
    "swizzled": '''
def swizzled(tensor, *sides):
    """A descriptor of blocks that lie in shared memory as warpgroups read them."""
    of = described(tensor, *sides)
    layout = gl.NVMMASharedLayout.get_default_for([*sides], getattr(gl, str(tensor.dtype).removeprefix("torch.")))
    return SwizzledDescriptor(tensor, of.shape, of.strides, of.block_shape, layout)
''',
    "processors": '''
def processors(tensor):
    """Those of the GPU that a tensor is on; without one, as many as there are programs."""
    at = getattr(tensor, "base", tensor).device
    return torch.cuda.get_device_properties(at).multi_processor_count if at.type == "cuda" else 2**30
''',
    "zero": '''
def zero(device):
    """A number in memory from which kernels count."""
    return torch.zeros(1, dtype=torch.int32, device=device)
''',
    "agreed": '''
@gluon.jit
def agreed(condition):
    """A condition that is the same for all threads. By the vote the assembler knows that a warp does not part there,
    and goes on to count steps once for all of its threads."""
    return tl.inline_asm_elementwise(
        "{ .reg .pred p; setp.ne.s32 p, $1, 0; vote.sync.any.pred p, p, 0xffffffff; selp.s32 $0, 1, 0, p; }",
        "=r,r", [condition.to(tl.int32)], dtype=tl.int32, is_pure=True, pack=1,
    ) != 0
''',
    "tell": '''
@gluon.jit
def tell(slots, k, x, dtype: gl.constexpr):
    """Leave a number for other warps; the warp that calls is alone."""
    slots.index(k).store(gl.full([1], x, dtype, layout=gl.BlockedLayout([1], [32], [1], [0])))
''',
    "told": '''
@gluon.jit
def told(slots, k):
    """A number that another warp has left."""
    return tl.max(slots.index(k).load(gl.BlockedLayout([1], [32], [4], [0])), 0)
''',
    "fetch": """
# what Triton 3.6 calls otherwise
fetch = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
""",
}
