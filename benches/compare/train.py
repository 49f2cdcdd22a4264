"""Times one training step of a ViT: m3ret against PyTorch, in one go.

A step is the forward pass, the mean square of all tokens as the loss, every gradient, and AdamW. How
engines are run, timed and compared is encode.py's, whose options this takes too.

Run from the repository root, in a Python with torch:
    cargo build --release -p m3ret-encoder -p m3ret-pretrain --examples
    python benches/compare/train.py --json train.json --docs docs/benchmarks.md
"""

import encode

STEP = {"is_training": True, "frames": 1, "tokens": 197}
CASES = {
    "ViT-S/16, 197 tokens, batch 16": encode.SMALL | STEP | {"batch": 16},
    "ViT-B/16, 197 tokens, batch 4": encode.BASE | STEP | {"batch": 4},
    "ViT-S, 1569 tokens, batch 1":
        encode.SMALL | STEP | {"batch": 1, "frames": 32, "tokens": 1569},
}
encode.REFERENCE = "torch training f32"
ENGINES = [encode.REFERENCE, "torch training bf16", "m3ret f32", "m3ret bf16"]

if __name__ == "__main__":
    encode.main(__doc__, CASES, ENGINES, "train.py")
