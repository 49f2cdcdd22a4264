"""Makes the golden case c12_stem with PyTorch, whole images and images of which patches are hidden.

    python3 stem.py OUT [SEED]

OUT/c12_stem.weights.safetensors and .json   a network with a convolutional stem, as its folder has it
OUT/c12_stem.safetensors and .json           inputs, tokens, and gradients of sum(tokens * probe)

The reference works on whole planes: Conv3d with kernel (1, 3, 3), stride (1, 2, 2) and padding (0, 1, 1), then a
group norm, then the exact GELU. Hidden patches are zero before and after every convolution, and do not count in
the statistics of the group norm. Needs numpy, safetensors, torch.
"""

import json
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

GROUPS, EPS = 8, 1e-6
CONFIG = {"in_chans": 3, "embed_dim": 24, "depth": 1, "num_heads": 2, "mlp_hidden": 40, "num_registers": 1,
          "patch": [2, 4, 4], "stem": "conv", "ref_grid": [2, 4, 4]}
INPUTS = {"flat": [2, 3, 1, 16, 12], "deep": [2, 3, 4, 8, 16]}


def positions(grid, ref_grid, width):
    """Fixed sines and cosines of centre coordinates; their widths are those of our own models."""
    in_plane = 2 * -(-width // 6)
    widths = [width - 2 * in_plane, in_plane, in_plane]
    axes = []
    for n, ref, part in zip(grid, ref_grid, widths):
        centre = (np.arange(n) + 0.5) / n * ref - 0.5
        omega = 1 / 10000 ** (np.arange(part // 2) / (part / 2))
        angle = centre[:, None] * omega[None]
        axes.append(np.concatenate([np.sin(angle), np.cos(angle)], 1))
    z, y, x = np.meshgrid(*[np.arange(n) for n in grid], indexing="ij")
    parts = [axes[0][z.ravel()], axes[1][y.ravel()], axes[2][x.ravel()]]
    return torch.tensor(np.concatenate(parts, 1))


def weights(rng):
    """Draws every tensor of the network."""
    width, hidden = CONFIG["embed_dim"], CONFIG["mlp_hidden"]
    shapes = {"cls_token": [1, 1, width], "register_tokens": [1, 1, width],
              "patch_embed.proj.weight": [width, 64, 1, 1, 1], "patch_embed.proj.bias": [width],
              "norm.weight": [width], "norm.bias": [width]}
    n_in = 3
    for stage, n_out in enumerate([32, 64]):
        name = f"patch_embed.stages.{stage}"
        shapes |= {f"{name}.conv.weight": [n_out, n_in, 3, 3], f"{name}.norm.weight": [n_out],
                   f"{name}.norm.bias": [n_out]}
        n_in = n_out
    linears = {"attn.qkv": [3 * width, width], "attn.proj": [width, width], "mlp.fc1": [hidden, width],
               "mlp.fc2": [width, hidden]}
    for name, shape in linears.items():
        shapes |= {f"blocks.0.{name}.weight": shape, f"blocks.0.{name}.bias": shape[:1]}
    for name in ("norm1", "norm2"):
        shapes |= {f"blocks.0.{name}.weight": [width], f"blocks.0.{name}.bias": [width]}
    made = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape) * 0.2
        made[name] = (values + ("norm" in name and name.endswith("weight"))).astype(np.float32)
    return made


def group_norm(x, mask, weight, bias):
    """Over the places that are seen only. x [B, C, D, H, W], mask [B, 1, D, H, W]."""
    b, c = x.shape[:2]
    grouped = x.reshape(b, GROUPS, c // GROUPS, *x.shape[2:])
    seen = mask[:, None]
    n = seen.sum((2, 3, 4, 5), keepdim=True) * (c // GROUPS)
    mean = (grouped * seen).sum((2, 3, 4, 5), keepdim=True) / n
    variance = ((grouped - mean) ** 2 * seen).sum((2, 3, 4, 5), keepdim=True) / n
    normed = ((grouped - mean) / (variance + EPS).sqrt()).reshape(x.shape)
    shape = [1, c, 1, 1, 1]
    return normed * weight.reshape(shape) + bias.reshape(shape)


def stem(images, cells, w):
    """[B, 3, D, H, W] and the seen cells of each image -> [B, grid, E], zero where nothing is seen."""
    b, _, depth, height, width = images.shape
    pd, side, _ = CONFIG["patch"]
    if depth > 1:
        images = images.reshape(b, 3, depth // pd, pd, height, width).mean(3)
    grid = [images.shape[2], height // side, width // side]
    seen = torch.zeros(b, grid[0] * grid[1] * grid[2], dtype=images.dtype)
    for image, some in enumerate(cells):
        seen[image, some] = 1
    seen = seen.reshape(b, 1, *grid)
    scaled = lambda factor: seen.repeat_interleave(factor, 3).repeat_interleave(factor, 4)
    x = images * scaled(side)
    for stage in range(2):
        name = f"patch_embed.stages.{stage}"
        kernel = w[f"{name}.conv.weight"][:, :, None]
        x = F.conv3d(x, kernel, stride=(1, 2, 2), padding=(0, 1, 1))
        side //= 2
        mask = scaled(side)
        x = F.gelu(group_norm(x, mask, w[f"{name}.norm.weight"], w[f"{name}.norm.bias"])) * mask
        if len({len(some) for some in cells}) == 1 and len(cells[0]) == seen[0].numel() and stage == 0:
            check_against_torch(images, w)
    x = F.conv3d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"])
    return x.flatten(2).transpose(1, 2), grid


def check_against_torch(images, w):
    """Without hidden patches, the group norm above is PyTorch's own."""
    kernel = w["patch_embed.stages.0.conv.weight"][:, :, None]
    x = F.conv3d(images, kernel, stride=(1, 2, 2), padding=(0, 1, 1))
    norm = [w[f"patch_embed.stages.0.norm.{part}"] for part in ("weight", "bias")]
    ours = group_norm(x, torch.ones_like(x[:, :1]), *norm)
    assert torch.allclose(ours, F.group_norm(x, GROUPS, *norm, eps=EPS), atol=1e-9)


def encode(images, cells, w):
    """Every token after the final norm, [B, 2 + seen, E], and the patch embedding of the seen cells."""
    width, heads = CONFIG["embed_dim"], CONFIG["num_heads"]
    embedded, grid = stem(images, cells, w)
    places = torch.tensor(cells)
    take = lambda rows: torch.stack([row[some] for row, some in zip(rows, places)])
    seen = take(embedded)
    position = positions(grid, CONFIG["ref_grid"], width).to(images.dtype)
    x = seen + take(position.expand(len(images), -1, -1))
    prefix = torch.cat([w["cls_token"], w["register_tokens"]], 1).expand(len(images), -1, -1)
    x = torch.cat([prefix, x], 1)
    norm = lambda x, name: F.layer_norm(x, [width], w[f"{name}.weight"], w[f"{name}.bias"], EPS)
    linear = lambda x, name: F.linear(x, w[f"blocks.0.{name}.weight"], w[f"blocks.0.{name}.bias"])
    qkv = linear(norm(x, "blocks.0.norm1"), "attn.qkv")
    q, k, v = qkv.reshape(len(x), -1, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    x = x + linear(attended, "attn.proj")
    x = x + linear(F.gelu(linear(norm(x, "blocks.0.norm2"), "mlp.fc1")), "mlp.fc2")
    return norm(x, "norm"), seen, grid


def main(out, seed="0"):
    """Writes the case."""
    rng = np.random.default_rng(int(seed) + 12)
    os.makedirs(out, exist_ok=True)
    drawn = weights(rng)
    save_file(drawn, os.path.join(out, "c12_stem.weights.safetensors"))
    tensors, described = {}, {}
    for kind, shape in INPUTS.items():
        images = rng.random(shape).astype(np.float32)
        tensors[f"{kind}.input"] = images
        n_z = max(1, shape[2] // CONFIG["patch"][0])
        n_cells = n_z * (shape[3] // 4) * (shape[4] // 4)
        parts = {"whole": [list(range(n_cells))] * shape[0],
                 "hidden": [sorted(rng.permutation(n_cells)[:n_cells // 2].tolist()) for _ in range(shape[0])]}
        described[kind] = {"shape": shape, "seen": parts}
        for part, cells in parts.items():
            w = {name: torch.tensor(values.astype(np.float64), requires_grad=True) for name, values in drawn.items()}
            tokens, embedded, grid = encode(torch.tensor(images.astype(np.float64)), cells, w)
            probe = rng.standard_normal(tokens.shape).astype(np.float32)
            (tokens * torch.tensor(probe.astype(np.float64))).sum().backward()
            described[kind]["grid"] = grid
            at = f"{kind}.{part}"
            tensors[f"{at}.tokens"] = tokens.detach().numpy().astype(np.float32)
            tensors[f"{at}.patch_embed"] = embedded.detach().numpy().astype(np.float32)
            tensors[f"{at}.probe"] = probe
            for name, value in w.items():
                if name.startswith("patch_embed"):
                    tensors[f"{at}.gradient.{name}"] = value.grad.numpy().astype(np.float32)
    save_file(tensors, os.path.join(out, "c12_stem.safetensors"))
    with open(os.path.join(out, "c12_stem.weights.json"), "w") as file:
        json.dump(CONFIG, file, indent=1)
    with open(os.path.join(out, "c12_stem.json"), "w") as file:
        # Sums of some hundred f32 products; gradients add those of all positions.
        tolerance = {"tokens": {"atol": 2e-5, "rtol": 2e-5},
                     "gradient": {"atol": 0, "rtol": 2e-5, "relative_to": "tensor_max"}}
        json.dump({"config": CONFIG, "inputs": described, "tolerance": tolerance}, file, indent=1)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
