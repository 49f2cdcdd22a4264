"""The Python engines that encode.py and train.py time, one a child process; not run by hand.

encode_engines.py run ENGINE CASE.json FOLDER THREADS   loads, warms up, says `ready`, then runs one
                                                        pass for each line of its input
encode_engines.py export CASE.json FOLDER               writes f32.onnx, dynamic.onnx, static.onnx

Every engine computes the same network: a plain ViT with random weights, as timm builds it.
"""

import json
import sys
import time
from pathlib import Path


def network(case):
    """A ViT in PyTorch: patches by a convolution (2D) or a reshape (3D), pre-norm blocks."""
    import torch
    from torch import nn
    from torch.nn import functional

    width, n_heads = case["width"], case["heads"]
    n_patches = case["tokens"] - 1

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            batch, length, _ = x.shape
            qkv = self.qkv(self.norm1(x)).reshape(batch, length, 3, n_heads, width // n_heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            attended = functional.scaled_dot_product_attention(q, k, v)
            x = x + self.proj(attended.transpose(1, 2).reshape(batch, length, width))
            return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))

    class Vit(nn.Module):
        def __init__(self):
            super().__init__()
            if case["frames"] == 1:
                self.embed = nn.Conv2d(3, width, 16, 16)
            else:
                self.embed = nn.Linear(3 * 4 * 16 * 16, width)
            self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
            self.positions = nn.Parameter(torch.randn(1, n_patches + 1, width) * 0.02)
            self.blocks = nn.Sequential(*[Block() for _ in range(case["depth"])])
            self.norm = nn.LayerNorm(width, 1e-6)

        def forward(self, x):
            if case["frames"] == 1:
                x = self.embed(x).flatten(2).transpose(1, 2)
            else:
                cut = x.reshape(-1, 3, case["frames"] // 4, 4, 14, 16, 14, 16)
                x = self.embed(cut.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4).flatten(1, 3))
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.positions
            return self.norm(self.blocks(x))

    torch.manual_seed(0)
    return Vit().eval()


def pixels(case):
    import numpy as np

    shape = [case["batch"], 3, 224, 224]
    if case["frames"] > 1:
        shape.insert(2, case["frames"])
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def with_torch(case, _, n_threads, dtype="float32", is_compiled=False):
    import torch

    torch.set_num_threads(n_threads)
    torch.set_num_interop_threads(1)
    dtype = getattr(torch, dtype)
    model = network(case).to(dtype)
    x = torch.from_numpy(pixels(case)).to(dtype)
    if is_compiled:
        from torch._inductor import config

        config.freezing = True
        model = torch.compile(model)

    def forward():
        with torch.inference_mode():
            return model(x)

    return forward


def with_training(case, _, n_threads, autocast=None):
    """A training step: all tokens, the mean of their squares, every gradient, AdamW."""
    import contextlib

    import torch

    torch.set_num_threads(n_threads)
    torch.set_num_interop_threads(1)
    device = "cuda" if case.get("device") == "cuda" else "cpu"
    model = network(case).train().to(device)
    # Positions are fixed in the network that this is compared with.
    model.positions.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], 1e-4, (0.9, 0.95), weight_decay=0.05)
    x = torch.from_numpy(pixels(case)).to(device)

    def step():
        mixed = (torch.autocast(device, getattr(torch, autocast)) if autocast
                 else contextlib.nullcontext())
        with mixed:
            loss = model(x).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def with_onnxruntime(case, folder, n_threads, file):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = n_threads, 1
    session = onnxruntime.InferenceSession(
        folder / file, options, providers=["CPUExecutionProvider"])
    x = {session.get_inputs()[0].name: pixels(case)}
    return lambda: session.run(None, x)


def with_openvino(case, folder, n_threads, file, precision):
    import openvino

    settings = {"INFERENCE_NUM_THREADS": n_threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    if precision:
        settings["INFERENCE_PRECISION_HINT"] = precision
    request = openvino.Core().compile_model(folder / file, "CPU", settings).create_infer_request()
    x = pixels(case)
    return lambda: request.infer([x], share_inputs=True)


ENGINES = {
    "torch f32": (with_torch, {}),
    "torch bf16": (with_torch, {"dtype": "bfloat16"}),
    "torch.compile f32": (with_torch, {"is_compiled": True}),
    "torch.compile bf16": (with_torch, {"dtype": "bfloat16", "is_compiled": True}),
    "torch training f32": (with_training, {}),
    "torch training bf16": (with_training, {"autocast": "bfloat16"}),
    "onnxruntime f32": (with_onnxruntime, {"file": "f32.onnx"}),
    "onnxruntime int8, dynamic": (with_onnxruntime, {"file": "dynamic.onnx"}),
    "openvino f32": (with_openvino, {"file": "f32.onnx", "precision": "f32"}),
    "openvino bf16": (with_openvino, {"file": "f32.onnx", "precision": "bf16"}),
    # What is not int8 runs in OpenVINO's own choice, bf16 where the CPU has it.
    "openvino int8, static": (with_openvino, {"file": "static.onnx", "precision": None}),
}


def run(name, case, folder, n_threads):
    make, how = ENGINES[name]
    forward = make(case, folder, n_threads, **how)
    for _ in range(2):
        forward()
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        forward()
        print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)


def export(case, folder):
    import torch
    from onnxruntime import quantization as q

    x = pixels(case)
    f32, plain = folder / "f32.onnx", folder / "plain.onnx"
    torch.onnx.export(network(case), (torch.from_numpy(x),), f32, input_names=["x"],
                      opset_version=18, dynamo=True, external_data=False)
    q.shape_inference.quant_pre_process(f32, plain)
    products = ["MatMul", "Gemm"]
    # Per-channel weights; activations by token are not offered, so by tensor.
    q.quantize_dynamic(plain, folder / "dynamic.onnx", op_types_to_quantize=products,
                       per_channel=True, weight_type=q.QuantType.QInt8)

    class One(q.CalibrationDataReader):
        left = [{"x": x}]

        def get_next(self):
            return self.left.pop() if self.left else None

    # Products of two activations, in attention, stay floats, as ours do.
    import onnx

    graph = onnx.load(plain, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    of_weights = [node.name for node in graph.node
                  if node.op_type in products and weights & set(node.input)]
    q.quantize_static(plain, folder / "static.onnx", One(), per_channel=True,
                      nodes_to_quantize=of_weights, activation_type=q.QuantType.QUInt8,
                      weight_type=q.QuantType.QInt8, extra_options={"WeightSymmetric": True})
    plain.unlink()


def main():
    command, *arguments = sys.argv[1:]
    if command == "export":
        export(json.loads(Path(arguments[0]).read_text()), Path(arguments[1]))
    else:
        name, case, folder, n_threads = arguments
        run(name, json.loads(Path(case).read_text()), Path(folder), int(n_threads))


if __name__ == "__main__":
    main()
