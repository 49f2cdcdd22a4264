"""CPU time of m3ret and of the Python equivalent for reading one file, alternating in one run.

usage: read_formats.py [FILE...] [--rounds 7] [--reads 10]

Without files, synthetic volumes of several kinds are written to a temporary folder: a noisy CT, a
smooth MR, a label map, floats. Needs nibabel and numpy, and the example built by
`cargo build --release -p m3ret-imaging --example read_bench`.
Python's work: `np.asarray(nibabel.load(f).dataobj).astype(np.float32)`, and the more usual
`nibabel.load(f).get_fdata().astype(np.float32)`; m3ret also reorients.
"""

import argparse
import gzip
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def synthetic(folder):
    import nibabel as nib
    import numpy as np

    rng = np.random.default_rng(0)
    side = np.arange(192) - 96
    body = ((side[:, None, None] / 80) ** 2 + (side[None, :, None] / 60) ** 2 < 1) * np.ones(192)
    smooth = rng.normal(size=(24, 24, 24)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    noise = rng.normal(size=body.shape)
    ct = np.where(body, 40 + 80 * smooth + 12 * noise, -1000 + 5 * noise).astype(np.int16)
    mr = np.where(body, 400 + 100 * smooth + 10 * noise, 0).clip(0).astype(np.int16)
    volumes = {
        "ct_i16": (ct, np.diag([-0.8, -0.8, 1.5, 1])),
        "mr_i16_ras": (mr, np.diag([1, 1, 1, 1.0])),
        "mr_i16_sagittal": (mr, np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])),
        "label_u8": (np.where(body, (smooth > 0) + 1, 0).astype(np.uint8), np.diag([1, 1, 1, 1.0])),
        "mr_f32": (mr.astype(np.float32) * 0.37, np.diag([1, 1, 1, 1.0])),
    }
    for name, (array, affine) in volumes.items():
        nib.save(nib.Nifti1Image(array, affine), folder / f"{name}.nii.gz")
    scaled = nib.Nifti1Image(mr, np.diag([1, 1, 1, 1.0]))
    scaled.header.set_slope_inter(0.5, -3)
    nib.save(scaled, folder / "mr_i16_scaled.nii.gz")
    # nibabel compresses at level 1; gzip, pigz and dcm2niix at level 6.
    for name in ["ct_i16", "mr_i16_ras"]:
        plain = gzip.decompress((folder / f"{name}.nii.gz").read_bytes())
        (folder / f"{name}_level6.nii.gz").write_bytes(gzip.compress(plain, 6))
    return sorted(folder.glob("*.nii.gz"))


WAYS = {
    "asarray": "np.asarray(nib.load(sys.argv[1]).dataobj).astype(np.float32)",
    "get_fdata": "nib.load(sys.argv[1]).get_fdata().astype(np.float32)",
}


def python_read(path, n_reads, way):
    """CPU seconds a read, in a child that has imported everything and read once."""
    code = (
        "import sys, resource, numpy as np, nibabel as nib\n"
        f"read = lambda: {WAYS[way]}\n"
        "cpu = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])\n"
        "read(); start = cpu()\n"
        "for _ in range(int(sys.argv[2])): read()\n"
        "print((cpu() - start) / int(sys.argv[2]))\n"
    )
    return run([sys.executable, "-c", code, str(path), str(n_reads)])


def m3ret_read(path, n_reads):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return run([str(target / "release/examples/read_bench"), str(path), str(n_reads)])


def run(command):
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | one)
    return float(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--reads", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = options.files or synthetic(pathlib.Path(folder))
        print(f"{'file':28} {'m3ret ms':>9} " + " ".join(f"{way + ' ms':>12} {'ratio':>6}" for way in WAYS))
        all_ratios = {way: [] for way in WAYS}
        for path in files:
            rounds = []
            for _ in range(options.rounds):
                theirs = {way: python_read(path, options.reads, way) for way in WAYS}
                rounds.append((m3ret_read(path, options.reads), theirs))
            line = f"{path.name[-28:]:28} {statistics.median(ours for ours, _ in rounds) * 1e3:9.2f}"
            for way in WAYS:
                theirs = statistics.median(theirs[way] for _, theirs in rounds) * 1e3
                ratio = statistics.median(ours / theirs[way] for ours, theirs in rounds)
                all_ratios[way].append(ratio)
                line += f" {theirs:12.2f} {ratio:6.3f}"
            print(line, flush=True)
        for way, ratios in all_ratios.items():
            print(f"median of the files' median ratios to {way}: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
