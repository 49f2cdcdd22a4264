"""Writes testdata/golden/c13_salt.{json,safetensors}: one SALT step in float64, by plain PyTorch.

    python tools/golden/salt.py testdata/golden

Needs torch, numpy and safetensors. Written from the definitions in docs/pretraining.md ("salt"), the MAE
paper and the positions' definition; it shares no code with the Rust crates. Weights and inputs are rounded
to f32 first, so that both sides begin with the same numbers.
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.manual_seed(13)
torch.set_default_dtype(torch.float64)

STUDENT = dict(in_chans=3, embed_dim=20, depth=2, num_heads=2, mlp_hidden=40, num_registers=1,
               patch=[2, 4, 4], ref_grid=[4, 3, 3])
# The first has the student's patches and a smaller input, the second other patches and a shallower one.
TEACHERS = [
    dict(vit=dict(in_chans=3, embed_dim=16, depth=1, num_heads=2, mlp_hidden=24, num_registers=0,
                  patch=[2, 4, 4], ref_grid=[4, 2, 2]), side=8, max_depth=8),
    dict(vit=dict(in_chans=3, embed_dim=12, depth=1, num_heads=1, mlp_hidden=20, num_registers=2,
                  patch=[2, 3, 3], ref_grid=[2, 4, 4]), side=12, max_depth=4),
]
DECODER = dict(embed_dim=16, depth=1, num_heads=2, mlp_hidden=32)
SIDE = 12
RATIO = {True: 0.6, False: 0.8}  # of flat and of deep grids
SAMPLES = [
    dict(depth=1, relation=["same"], changed=False),
    dict(depth=1, relation=["same"], changed=True),
    dict(depth=8, relation=["same"], changed=True),
    dict(depth=8, relation=["plane", 5, 8], changed=True),
    dict(depth=8, relation=["rows"], changed=True),
    dict(depth=8, relation=["columns"], changed=True),
    dict(depth=8, relation=["same"], changed=False),
]


def f32(x):
    return x.to(torch.float32).to(torch.float64)


def block_weights(prefix, width, hidden):
    w = {}
    for norm in ("norm1", "norm2"):
        w[f"{prefix}.{norm}.weight"] = 1 + 0.2 * torch.randn(width)
        w[f"{prefix}.{norm}.bias"] = 0.1 * torch.randn(width)
    for name, n_out, n_in in [("attn.qkv", 3 * width, width), ("attn.proj", width, width),
                              ("mlp.fc1", hidden, width), ("mlp.fc2", width, hidden)]:
        w[f"{prefix}.{name}.weight"] = torch.randn(n_out, n_in) / math.sqrt(n_in)
        w[f"{prefix}.{name}.bias"] = 0.1 * torch.randn(n_out)
    return w


def encoder_weights(c):
    width = c["embed_dim"]
    w = {"cls_token": 0.3 * torch.randn(1, 1, width)}
    if c["num_registers"]:
        w["register_tokens"] = 0.3 * torch.randn(1, c["num_registers"], width)
    n_in = 3 * math.prod(c["patch"])
    w["patch_embed.proj.weight"] = torch.randn(width, 3, *c["patch"]) / math.sqrt(n_in)
    w["patch_embed.proj.bias"] = 0.1 * torch.randn(width)
    for i in range(c["depth"]):
        w |= block_weights(f"blocks.{i}", width, c["mlp_hidden"])
    w["norm.weight"] = 1 + 0.2 * torch.randn(width)
    w["norm.bias"] = 0.1 * torch.randn(width)
    return {name: f32(value) for name, value in w.items()}


def student_weights():
    w = encoder_weights(STUDENT)
    width = DECODER["embed_dim"]
    n_out = sum(t["vit"]["embed_dim"] for t in TEACHERS)
    more = {
        "decoder_embed.weight": torch.randn(width, STUDENT["embed_dim"]) / math.sqrt(STUDENT["embed_dim"]),
        "decoder_embed.bias": 0.1 * torch.randn(width),
        "mask_token": 0.3 * torch.randn(1, 1, width),
        "decoder_norm.weight": 1 + 0.2 * torch.randn(width),
        "decoder_norm.bias": 0.1 * torch.randn(width),
        "decoder_pred.weight": torch.randn(n_out, width) / math.sqrt(width),
        "decoder_pred.bias": 0.1 * torch.randn(n_out),
    }
    for i in range(DECODER["depth"]):
        more |= block_weights(f"decoder_blocks.{i}", width, DECODER["mlp_hidden"])
    return w | {name: f32(value) for name, value in more.items()}


def positions(grid, ref, width):
    in_plane = 2 * math.ceil(width / 6)
    widths = [width - 2 * in_plane, in_plane, in_plane]

    def part(n, g, w):
        c = (torch.arange(n) + 0.5) / n * g - 0.5
        f = 10000.0 ** (-torch.arange(w // 2) / (w // 2))
        angle = c[:, None] * f[None]
        return torch.cat([angle.sin(), angle.cos()], 1)

    z, y, x = (part(n, g, w) for n, g, w in zip(grid, ref, widths))
    d, h, w = grid
    full = torch.cat([
        z[:, None, None].expand(d, h, w, -1),
        y[None, :, None].expand(d, h, w, -1),
        x[None, None, :].expand(d, h, w, -1),
    ], -1)
    return f32(full.reshape(d * h * w, width))


def run_block(w, prefix, x, heads):
    n, width = x.shape
    get = lambda name: w[f"{prefix}.{name}"]
    y = F.layer_norm(x, (width,), get("norm1.weight"), get("norm1.bias"), 1e-6)
    qkv = F.linear(y, get("attn.qkv.weight"), get("attn.qkv.bias"))
    q, k, v = qkv.reshape(n, 3, heads, width // heads).permute(1, 2, 0, 3)
    a = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
    x = x + F.linear(a.permute(1, 0, 2).reshape(n, width), get("attn.proj.weight"), get("attn.proj.bias"))
    y = F.layer_norm(x, (width,), get("norm2.weight"), get("norm2.bias"), 1e-6)
    y = F.gelu(F.linear(y, get("mlp.fc1.weight"), get("mlp.fc1.bias")))
    return x + F.linear(y, get("mlp.fc2.weight"), get("mlp.fc2.bias"))


def grid_of(image, patch):
    _, d, h, w = image.shape
    return [max(1, d // patch[0]), h // patch[1], w // patch[2]]


def encode(w, c, image, cells=None):
    """Final tokens, CLS and registers first, of an image [3, D, H, W]."""
    patch, width = c["patch"], c["embed_dim"]
    if image.shape[1] == 1:
        image = image.expand(-1, patch[0], -1, -1)
    grid = grid_of(image, patch)
    tokens = F.conv3d(image[None], w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=patch)
    tokens = tokens[0].reshape(width, -1).T + positions(grid, c["ref_grid"], width)
    if cells is not None:
        tokens = tokens[cells]
    prefix = [w["cls_token"][0]]
    if c["num_registers"]:
        prefix.append(w["register_tokens"][0])
    x = torch.cat(prefix + [tokens])
    for i in range(c["depth"]):
        x = run_block(w, f"blocks.{i}", x, c["num_heads"])
    return F.layer_norm(x, (width,), w["norm.weight"], w["norm.bias"], 1e-6)


def predict(w, image, keep, hidden):
    c = STUDENT
    grid = grid_of(image, c["patch"])
    latent = encode(w, c, image, keep)
    latent = torch.cat([latent[:1], latent[1 + c["num_registers"]:]])
    embedded = F.linear(latent, w["decoder_embed.weight"], w["decoder_embed.bias"])
    width = DECODER["embed_dim"]
    full = w["mask_token"][0].expand(math.prod(grid), width).clone()
    full[keep] = embedded[1:]
    full = full + positions(grid, c["ref_grid"], width)
    x = torch.cat([embedded[:1], full])
    for i in range(DECODER["depth"]):
        x = run_block(w, f"decoder_blocks.{i}", x, DECODER["num_heads"])
    x = F.layer_norm(x[1:][hidden], (width,), w["decoder_norm.weight"], w["decoder_norm.bias"], 1e-6)
    return F.linear(x, w["decoder_pred.weight"], w["decoder_pred.bias"])


def triangle(x, axis, n):
    """Pillow's BILINEAR along one axis: torch's antialiased linear interpolation."""
    x = x.movedim(axis, -1)
    shape = x.shape
    rows = x.reshape(1, 1, -1, shape[-1])
    rows = F.interpolate(rows, size=(rows.shape[2], n), mode="bilinear", antialias=True, align_corners=False)
    return rows.reshape(*shape[:-1], n).movedim(-1, axis)


def teacher_input(image, t):
    _, depth, side, _ = image.shape
    if depth > 1:
        pd = t["vit"]["patch"][0]
        wanted = min(max(round(depth / pd) * pd, pd), t["max_depth"])
        image = triangle(image, 1, wanted) if wanted != depth else image
    if side != t["side"]:
        image = triangle(triangle(image, 2, t["side"]), 3, t["side"])
    return image


def target(w, t, image, relation, grid):
    """The teacher's normalised tokens on the student's grid: [cells, width]."""
    image = teacher_input(image, t)
    from_grid = grid_of(image, t["vit"]["patch"])
    tokens = encode(w, t["vit"], image)[1 + t["vit"]["num_registers"]:]
    field = tokens.T.reshape(1, -1, *from_grid)
    if relation[0] == "plane":
        slab = relation[1] * from_grid[0] // relation[2]
        field = field[:, :, slab:slab + 1]
    elif relation[0] == "rows":
        # [D, W] as rows and columns, the last plane on top.
        field = field.mean(3).flip(2)[:, :, None]
    elif relation[0] == "columns":
        field = field.mean(4).flip(2)[:, :, None]
    field = F.interpolate(field, size=tuple(grid), mode="trilinear", align_corners=False)
    tokens = field[0].reshape(field.shape[1], -1).T
    return F.layer_norm(tokens, (tokens.shape[1],), eps=1e-6)


def main(folder):
    student = {name: value.requires_grad_() for name, value in student_weights().items()}
    teachers = [encoder_weights(t["vit"]) for t in TEACHERS]
    tensors, losses = {}, []
    for i, sample in enumerate(SAMPLES):
        depth = sample["depth"]
        original = f32(torch.rand(3, depth, SIDE, SIDE))
        seen = original
        if sample["changed"]:
            seen = f32(torch.rand(3, 1 if sample["relation"][0] != "same" else depth, SIDE, SIDE))
        grid = grid_of(seen, STUDENT["patch"])
        n = math.prod(grid)
        noise = f32(torch.rand(n))
        n_keep = int(n * (1 - RATIO[grid[0] == 1]))
        order = torch.argsort(noise, stable=True)
        keep, hidden = order[:n_keep], order[n_keep:].sort().values
        found = predict(student, seen, keep, hidden)
        parts, first = [], 0
        for w, t in zip(teachers, TEACHERS):
            with torch.no_grad():
                wanted = target(w, t, original, sample["relation"], grid)[hidden]
            width = wanted.shape[1]
            parts.append(F.smooth_l1_loss(found[:, first:first + width], wanted, beta=1.0))
            first += width
        losses.append(sum(parts) / len(parts))
        tensors[f"original.{i}"] = original[None]
        if sample["changed"]:
            tensors[f"seen.{i}"] = seen[None]
        tensors[f"noise.{i}"] = noise
    loss = sum(losses) / len(losses)
    loss.backward()
    tensors = {name: value.to(torch.float32) for name, value in tensors.items()}
    for name, value in student.items():
        tensors[f"student.{name}"] = value.detach().to(torch.float32)
        tensors[f"grad.{name}"] = value.grad.to(torch.float32)
    for k, w in enumerate(teachers):
        for name, value in w.items():
            tensors[f"teacher.{k}.{name}"] = value.to(torch.float32)
    sizes = dict(
        case=13, student=STUDENT, decoder=DECODER, teachers=TEACHERS, samples=SAMPLES,
        mask_ratio=RATIO[True], mask_ratio_deep=RATIO[False], loss=loss.item(),
        tolerance=dict(
            loss=dict(atol=1e-5, rtol=1e-5),
            grad=dict(atol=1e-6, rtol=2e-4, relative_to="tensor_max"),
        ),
    )
    name = "c13_salt"
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(sizes, indent=1, sort_keys=True) + "\n")
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for file in (f"{name}.json", f"{name}.safetensors"):
        content = (folder / file).read_bytes()
        manifest["files"][file] = dict(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    path.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    print("loss", loss.item(), "torch", torch.__version__, "numpy", np.__version__)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
