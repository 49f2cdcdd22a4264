"""The encoder of m3ret as a module of PyTorch: loads a model folder and gives the same vectors.

    python torch_m3ret.py weights/m3ret-tiny image.nii.gz

Preparation (intensities, orientation, resampling) stays m3ret's: ``Encoder.prepare`` gives what the network sees.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F


def positions(grid: list[int], reference: list[int], width: int) -> Tensor:
    """Fixed sin-cos positions of patch centres in coordinates of the reference grid: [N, E], patches in (z, y, x) order."""
    in_plane = 2 * -(-width // 6)
    parts = []
    for n, side, part in zip(grid, reference, (width - 2 * in_plane, in_plane, in_plane)):
        centres = (torch.arange(n, dtype=torch.float64) + 0.5) / n * side - 0.5
        frequencies = 10_000.0 ** (-torch.arange(part // 2, dtype=torch.float64) / (part // 2))
        angles = centres[:, None] * frequencies
        parts.append(torch.cat([angles.sin(), angles.cos()], dim=1).float())
    z, y, x = parts
    n_z, n_y, n_x = grid
    whole = [
        z[:, None, None].expand(n_z, n_y, n_x, -1),
        y[None, :, None].expand(n_z, n_y, n_x, -1),
        x[None, None, :].expand(n_z, n_y, n_x, -1),
    ]
    return torch.cat(whole, dim=3).reshape(n_z * n_y * n_x, width)


class Block(nn.Module):
    """One transformer block, pre-norm."""

    def __init__(self, width: int, n_heads: int, hidden: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        # [B, L, 3E] -> 3 of [B, heads, L, E / heads]
        qkv = self.attn["qkv"](self.norm1(x)).view(b, n, 3, self.n_heads, width // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width)
        x = x + self.attn["proj"](attended)
        hidden = F.gelu(self.mlp["fc1"](self.norm2(x)))
        out: Tensor = x + self.mlp["fc2"](hidden)
        return out


class M3retEncoder(nn.Module):
    """[B, C, D, H, W] as ``Encoder.prepare`` gives it -> unit vectors [B, E]."""

    def __init__(self, config: dict[str, object], has_head: bool) -> None:
        super().__init__()
        sizes = json.loads(json.dumps(config))
        if sizes.get("stem", "patch") != "patch":
            raise ValueError("this module has no convolutional stem")
        width, self.patch, self.reference = sizes["embed_dim"], sizes["patch"], sizes["ref_grid"]
        self.pools_mean, self.n_prefix = sizes["embedding"] == "mean", 1 + sizes["num_registers"]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if sizes["num_registers"]:
            self.register_tokens = nn.Parameter(torch.zeros(1, sizes["num_registers"], width))
        projection = nn.Conv3d(sizes["in_chans"], width, self.patch, stride=self.patch)
        self.patch_embed = nn.ModuleDict({"proj": projection})
        blocks = [Block(width, sizes["num_heads"], sizes["mlp_hidden"]) for _ in range(sizes["depth"])]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.embedding = nn.Linear(width, width) if has_head else nn.Identity()

    @staticmethod
    def from_folder(folder: str | Path) -> M3retEncoder:
        """Loads ``config.json`` and ``model.safetensors``."""
        weights = load_file(Path(folder) / "model.safetensors")
        config = json.loads((Path(folder) / "config.json").read_text())
        model = M3retEncoder(config, "embedding.weight" in weights)
        model.load_state_dict({name: weight.float() for name, weight in weights.items()})
        return model.eval()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] == 1:
            # A picture is repeated along D to the depth of one patch.
            x = x.expand(-1, -1, self.patch[0], -1, -1)
        # [B, C, D, H, W] -> [B, E, z, y, x] -> [B, N, E]
        patches = self.patch_embed["proj"](x)
        grid = list(patches.shape[2:])
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = tokens + positions(grid, self.reference, tokens.shape[2]).to(tokens)
        prefix = [self.cls_token] + ([self.register_tokens] if self.n_prefix > 1 else [])
        tokens = torch.cat([*(part.expand(len(x), -1, -1) for part in prefix), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        pooled = tokens[:, self.n_prefix :].mean(1) if self.pools_mean else tokens[:, 0]
        return F.normalize(self.embedding(pooled), dim=1)


if __name__ == "__main__":
    import m3ret

    encoder = m3ret.load(sys.argv[1], precision="f32")
    model = M3retEncoder.from_folder(sys.argv[1])
    for path in sys.argv[2:]:
        [prepared] = encoder.prepare(path)
        with torch.no_grad():
            [vector] = model(torch.from_numpy(prepared)[None])
        difference = abs(vector.numpy() - encoder.embed(path).numpy()[0]).max()
        print(f"{path}: largest difference {difference:.1e}")
