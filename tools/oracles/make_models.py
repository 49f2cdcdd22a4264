"""Writes model folders with random weights, as their libraries save them, and what the libraries compute.

Run: python tools/oracles/make_models.py OUT [--full]   (needs requirements-models.txt)

OUT/cases.json lists the cases; numbers lie beside it as raw little-endian f32. `--full` adds networks of real size.
M3D-CLIP is written here from its published description (MONAI's ViT, perceptron patch embedding): no library holds it.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
import transformers as hf

torch.set_grad_enabled(False)


class Writer:
    """Collects cases and writes their numbers."""

    def __init__(self, out):
        self.out = Path(out)
        self.cases = []

    def array(self, name, values):
        """Writes an array as raw f32 and returns its file name with its shape."""
        values = np.ascontiguousarray(np.asarray(values), dtype="<f4")
        values.tofile(self.out / f"{name}.f32")
        return {"file": f"{name}.f32", "shape": list(values.shape)}

    def case(self, kind, model, name, inputs, wanted, tolerance):
        """Adds a case: `embed` compares unit vectors, `prepare` the network's input."""
        self.cases.append({
            "kind": kind,
            "model": model,
            "name": name,
            "input": self.array(f"{name}.input", inputs),
            "wanted": self.array(f"{name}.wanted", wanted),
            "tolerance": tolerance,
        })

    def close(self):
        """Writes the list of cases."""
        (self.out / "cases.json").write_text(json.dumps(self.cases, indent=1))


def shake(model):
    """Leaves no parameter at a default: norms of 1 and biases of 0 would hide faults."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            fan_in = parameter[0].numel()
            scale = 0.02 if "token" in name or "pos" in name else min(0.02, fan_in**-0.5)
            parameter.copy_(noise * scale)
        elif name.endswith("bias"):
            parameter.copy_(0.05 * noise)
        else:
            parameter.copy_(1 + 0.1 * noise)
    return model.eval()


def unit(vectors):
    """Scales rows to length 1."""
    return torch.nn.functional.normalize(vectors.double(), dim=-1)


def pixels(shape, seed=3):
    """Returns normalised pixels of any shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def networks(writer, is_full):
    """Networks of Hugging Face: real widths where `is_full`."""
    width = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12) if is_full else dict(
        hidden_size=128, num_hidden_layers=3, num_attention_heads=2)
    cls = lambda output: output.last_hidden_state[:, 0]
    rows = [
        # The published DINOv2 has 37 x 37 positions and is mostly run at 224.
        ("dinov2", hf.Dinov2Model(hf.Dinov2Config(image_size=518, patch_size=14, **width)), 224, cls, {}),
        ("dinov2_sharded", hf.Dinov2Model(hf.Dinov2Config(image_size=28, patch_size=14, **width)), 28, cls,
         {"max_shard_size": "200KB"}),
        ("dinov3", hf.DINOv3ViTModel(hf.DINOv3ViTConfig(num_register_tokens=4, intermediate_size=512, **width)),
         224, cls, {}),
        ("vit_classifier", hf.ViTForImageClassification(hf.ViTConfig(image_size=64, intermediate_size=256, **width)),
         64, None, {}),
        ("clip_full", hf.CLIPModel(hf.CLIPConfig(
            vision_config=dict(image_size=64, patch_size=32, intermediate_size=256, **width),
            text_config=dict(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                             intermediate_size=32, max_position_embeddings=8, eos_token_id=2),
            projection_dim=48)), 64, None, {}),
    ]
    for name, model, side, pool, options in rows:
        shake(model)
        model.save_pretrained(writer.out / name, **options)
        inputs = pixels([2, 3, side, side])
        if pool:
            wanted = pool(model(pixel_values=inputs))
        elif name == "clip_full":
            wanted = model.visual_projection(model.vision_model(pixel_values=inputs).pooler_output)
        else:
            wanted = cls(model.vit(pixel_values=inputs))
        writer.case("embed", name, name, inputs.unsqueeze(2), unit(wanted), 1e-4)


def trunk(writer):
    """An open_clip tower with a trunk of timm that is known by its name."""
    import open_clip
    from open_clip.model import CustomTextCLIP

    model_cfg = {
        "embed_dim": 24,
        "vision_cfg": {"timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": False,
                       "timm_pool": "", "timm_proj": "linear", "image_size": 224},
        "text_cfg": {"context_length": 6, "vocab_size": 11, "width": 16, "heads": 2, "layers": 1},
    }
    model = shake(CustomTextCLIP(**model_cfg))
    folder = writer.out / "open_clip_trunk"
    folder.mkdir()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic", "resize_mode": "shortest"}
    text = json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(text)
    inputs = pixels([2, 3, 224, 224])
    wanted = unit(model.encode_image(inputs))
    writer.case("embed", "open_clip_trunk", "open_clip_trunk", inputs.unsqueeze(2), wanted, 1e-4)
    transform = open_clip.image_transform(224, is_train=False, mean=tuple(preprocess["mean"]),
                                          std=tuple(preprocess["std"]), interpolation="bicubic", resize_mode="shortest")
    for name, picture in pictures():
        made = transform(Image.fromarray(picture))
        prepared(writer, "open_clip_trunk", name, picture, made, min(preprocess["std"]))


def pictures():
    """RGB pictures of several shapes: noise over a gradient, so that a shift of half a pixel shows."""
    rng = np.random.default_rng(11)
    for height, width in [(300, 451), (517, 260), (97, 131), (224, 224), (64, 64)]:
        y, x = np.mgrid[:height, :width]
        plane = 127 + 100 * np.sin(x / 5) * np.cos(y / 7)
        picture = plane[..., None] + rng.uniform(-25, 25, (height, width, 3))
        yield f"{height}x{width}", np.clip(picture, 0, 255).astype(np.uint8)


def prepared(writer, model, name, picture, made, std):
    """Adds a case of preparation: the library rounds to 8 bits twice, we never do."""
    volume = np.moveaxis(picture, -1, 0)[:, None].astype(np.float32)
    writer.case("prepare", model, f"{model}.{name}", volume, np.asarray(made)[:, None], 1.6 / 255 / std)


def processors(writer):
    """The preprocessing that public models are saved with."""
    imagenet = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    rows = [
        ("bit", hf.BitImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224},
                                     resample=3, **imagenet)),
        ("bit_518", hf.BitImageProcessor(size={"shortest_edge": 70}, crop_size={"height": 70, "width": 70},
                                         resample=3, **imagenet)),
        ("bit_uncropped", hf.BitImageProcessor(size={"shortest_edge": 84}, do_center_crop=False, resample=2, **imagenet)),
        ("bit_padded", hf.BitImageProcessor(size={"shortest_edge": 70}, crop_size={"height": 98, "width": 112},
                                            resample=3, **imagenet)),
        ("vit", hf.ViTImageProcessor(size={"height": 98, "width": 112}, resample=2)),
        ("clip", hf.CLIPImageProcessor(size={"shortest_edge": 84}, crop_size={"height": 84, "width": 84}, resample=3)),
        ("lanczos", hf.ViTImageProcessor(size={"height": 70, "width": 56}, resample=1)),
    ]
    model = shake(hf.Dinov2Model(hf.Dinov2Config(image_size=28, patch_size=14, hidden_size=32, num_hidden_layers=1,
                                                 num_attention_heads=2)))
    for name, processor in rows:
        folder = f"processor_{name}"
        model.save_pretrained(writer.out / folder)
        processor.save_pretrained(writer.out / folder)
        for tag, picture in pictures():
            made = processor(Image.fromarray(picture), return_tensors="np")["pixel_values"][0]
            # A convolution leaves what is over at the bottom and right.
            made = made[:, : made.shape[1] // 14 * 14, : made.shape[2] // 14 * 14]
            prepared(writer, folder, tag, picture, made, min(processor.image_std))


class M3d(torch.nn.Module):
    """M3D-CLIP's vision side with the names of its published weights."""

    def __init__(self, sides, patch, width, hidden, n_layers, n_heads):
        super().__init__()
        nn = torch.nn
        self.patch, self.n_heads = patch, n_heads
        encoder = nn.Module()
        encoder.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        encoder.patch_embedding = nn.Module()
        n_patches = int(np.prod([s // p for s, p in zip(sides, patch)]))
        encoder.patch_embedding.position_embeddings = nn.Parameter(torch.zeros(1, n_patches, width))
        # Number 0 is a rearrangement without weights.
        encoder.patch_embedding.patch_embeddings = nn.Sequential(nn.Identity(), nn.Linear(int(np.prod(patch)), width))
        encoder.blocks = nn.ModuleList()
        for _ in range(n_layers):
            block = nn.Module()
            block.norm1, block.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            block.attn, block.mlp = nn.Module(), nn.Module()
            block.attn.qkv = nn.Linear(width, 3 * width, bias=False)
            block.attn.out_proj = nn.Linear(width, width)
            block.mlp.linear1, block.mlp.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
            encoder.blocks.append(block)
        encoder.norm = nn.LayerNorm(width)
        self.vision_encoder = encoder
        self.mm_vision_proj = nn.Linear(width, width)

    def forward(self, volumes):
        encoder = self.vision_encoder
        batch, channels, *sides = volumes.shape
        grid = [s // p for s, p in zip(sides, self.patch)]
        cells = volumes.reshape(batch, channels, grid[0], self.patch[0], grid[1], self.patch[1], grid[2], self.patch[2])
        # b c (h p1) (w p2) (d p3) -> b (h w d) (p1 p2 p3 c)
        rows = cells.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(batch, int(np.prod(grid)), -1)
        x = encoder.patch_embedding.patch_embeddings(rows) + encoder.patch_embedding.position_embeddings
        x = torch.cat([encoder.cls_token.expand(batch, -1, -1), x], 1)
        for block in encoder.blocks:
            qkv = block.attn.qkv(block.norm1(x)).reshape(*x.shape[:2], 3, self.n_heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
            x = x + block.attn.out_proj((weights @ v).transpose(1, 2).reshape(x.shape))
            x = x + block.mlp.linear2(torch.nn.functional.gelu(block.mlp.linear1(block.norm2(x))))
        return self.mm_vision_proj(encoder.norm(x))[:, 0]


def m3d(writer):
    """M3D-CLIP with a text tower and a scale to be ignored."""
    sides, patch = (8, 24, 16), (2, 4, 8)
    model = shake(M3d(sides, patch, width=48, hidden=96, n_layers=2, n_heads=3))
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    tensors |= {
        "language_encoder.embeddings.word_embeddings.weight": torch.zeros(4, 2),
        "mm_language_proj.weight": torch.zeros(2, 2),
        "mm_language_proj.bias": torch.zeros(2),
        "logit_scale": torch.zeros([]),
    }
    folder = writer.out / "m3d"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = dict(model_type="m3d_clip", in_channels=1, img_size=sides, patch_size=patch, hidden_size=48, mlp_dim=96,
                  num_layers=2, num_heads=3, pos_embed="perceptron", spatial_dims=3)
    (folder / "config.json").write_text(json.dumps(config))
    inputs = pixels([2, 1, *sides])
    writer.case("embed", "m3d", "m3d", inputs, unit(model(inputs)), 1e-4)


def main():
    writer = Writer(sys.argv[1])
    networks(writer, "--full" in sys.argv)
    trunk(writer)
    processors(writer)
    m3d(writer)
    writer.close()


if __name__ == "__main__":
    main()
