"""Times what else computes our ops, on the layers that we were timed on.

    python3 peers.py OUT.json --times time.json --problems problems/ [--seconds N]

Reads the layers from `time.json` (written by `gpu time`), and small problems with macula's results from `problems/`
(written by `gpu problems`). A peer is timed only after its results, and its gradients where it has them, agree with
ours on those; one that cannot run is named with the reason. Without torch there is nothing to do, and that is said too.
On a machine without a GPU everything runs on the CPU with small layers: a rehearsal, not a measurement.
"""

import argparse
import json
import math
import pathlib
import statistics
import struct
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:  # named in the output, below
    torch, TORCH_ERROR = None, str(error)

# f32 results of other programs, tf32 switched off.
TOLERANCE = 2e-3


# ---------------------------------------------------------------- gaussian: v [b, h, y, x, d], sigma [1]


def weights(sigma, size, dtype):
    at = torch.arange(size, device=sigma.device, dtype=torch.float32)
    w = torch.exp(-0.5 * ((at[None] - at[:, None]) / sigma) ** 2)
    return (w / w.sum(1, keepdim=True)).to(dtype)


def gaussian_matmul(v, sigma, **_):
    """Two dense matrix products with the maps of rows and columns."""
    b, h, y, x, d = v.shape
    along_y = weights(sigma, y, v.dtype) @ v.reshape(b, h, y, x * d)
    return weights(sigma, x, v.dtype) @ along_y.reshape(b, h, y, x, d)


def gaussian_conv(v, sigma, **_):
    """Two depthwise convolutions of six radii, divided by what they make of ones."""
    b, h, y, x, d = v.shape
    reach = min(max(y, x) - 1, math.ceil(6 * float(sigma.detach())))
    at = torch.arange(-reach, reach + 1, device=v.device, dtype=torch.float32)
    taps = torch.exp(-0.5 * (at / sigma) ** 2)
    taps = (taps / taps.sum()).to(v.dtype)

    def blur(t, channels):
        t = F.conv2d(t, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), padding=(reach, 0), groups=channels)
        return F.conv2d(t, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), padding=(0, reach), groups=channels)

    channels_first = v.permute(0, 1, 4, 2, 3).reshape(b, h * d, y, x)
    o = blur(channels_first, h * d) / blur(torch.ones(1, 1, y, x, device=v.device, dtype=v.dtype), 1)
    return o.reshape(b, h, d, y, x).permute(0, 1, 3, 4, 2)


def gaussian_kornia(v, sigma, **_):
    import kornia

    b, h, y, x, d = v.shape
    size = 2 * min(max(y, x) - 1, math.ceil(6 * float(sigma.detach()))) + 1

    def blur(t):
        s = sigma.to(t.dtype).reshape(1, 1).expand(t.shape[0], 2)
        return kornia.filters.gaussian_blur2d(t, (size, size), s, border_type="constant", separable=True)

    o = blur(v.permute(0, 1, 4, 2, 3).reshape(b, h * d, y, x)) / blur(torch.ones(1, 1, y, x, device=v.device, dtype=v.dtype))
    return o.reshape(b, h, d, y, x).permute(0, 1, 3, 4, 2)


# ---------------------------------------------------------------- local: q, k, v [b, h, y, x, d], window, masked borders


def window_mask(y, x, window, device):
    r = window // 2
    yi, xi = torch.arange(y * x, device=device) // x, torch.arange(y * x, device=device) % x
    near = lambda at: (at[None] >= at[:, None] - r) & (at[None] <= at[:, None] + r)
    return near(yi) & near(xi)


def relative_logits(q, rel_h, rel_w):
    """q · r for every row offset and every column offset: [b, h, n, window] each."""
    half = q.shape[-1] // 2
    return q[..., :half] @ rel_h[0].t(), q[..., half:] @ rel_w[0].t()


def local_unfold(q, k, v, window, scale, rel_h=None, rel_w=None, **_):
    """The classic: windows of k and v copied out (k² times the memory)."""
    b, h, y, x, d = q.shape

    def windows(t):
        t = F.unfold(t.permute(0, 1, 4, 2, 3).reshape(b, h * d, y, x), window, padding=window // 2)
        return t.reshape(b, h, d, window * window, y * x)

    inside = F.unfold(torch.ones(1, 1, y, x, dtype=q.dtype, device=q.device), window, padding=window // 2)
    queries = q.reshape(b, h, y * x, d)
    logits = (queries.transpose(-1, -2).unsqueeze(3) * windows(k)).sum(2)
    if rel_h is not None:
        along_y, along_x = relative_logits(queries, rel_h, rel_w)
        relative = along_y.unsqueeze(-1) + along_x.unsqueeze(-2)
        logits = logits + relative.reshape(b, h, y * x, window * window).transpose(-1, -2)
    logits = (scale * logits).masked_fill(inside.reshape(1, 1, window * window, y * x) == 0, float("-inf"))
    o = (logits.softmax(2).unsqueeze(2) * windows(v)).sum(3)
    return o.transpose(-1, -2).reshape(b, h, y, x, d)


def local_sdpa(q, k, v, window, scale, **_):
    """Dense attention with the window as a mask."""
    b, h, y, x, d = q.shape
    flat = lambda t: t.reshape(b, h, y * x, d)
    mask = window_mask(y, x, window, q.device)
    o = F.scaled_dot_product_attention(flat(q), flat(k), flat(v), attn_mask=mask, scale=scale)
    return o.reshape(b, h, y, x, d)


FLEX = {}


def local_flex(q, k, v, window, scale, rel_h=None, rel_w=None, **_):
    """FlexAttention: the window as a block mask, q · r as a score modification with gradients."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    b, h, y, x, d = q.shape
    r = window // 2
    key = (y, x, window, q.device)
    if key not in FLEX:

        def mask(_b, _h, qi, ki):
            # Bounds, never |difference|: some releases of ptxas 13 compile that wrongly.
            qy, qx, ky, kx = qi // x, qi % x, ki // x, ki % x
            return (ky >= qy - r) & (ky <= qy + r) & (kx >= qx - r) & (kx <= qx + r)

        compiled = q.is_cuda
        FLEX[key] = create_block_mask(mask, None, None, y * x, y * x, device=q.device, _compile=compiled)
    if "op" not in FLEX:
        FLEX["op"] = torch.compile(flex_attention, dynamic=False) if q.is_cuda else flex_attention
    flat = lambda t: t.reshape(b, h, y * x, d)
    modify = None
    if rel_h is not None:
        along_y, along_x = relative_logits(flat(q), rel_h, rel_w)

        def modify(score, bi, hi, qi, ki):
            dy = (ki // x - qi // x + r).clamp(0, window - 1)
            dx = (ki % x - qi % x + r).clamp(0, window - 1)
            return score + scale * (along_y[bi, hi, qi, dy] + along_x[bi, hi, qi, dx])

    o = FLEX["op"](flat(q), flat(k), flat(v), score_mod=modify, block_mask=FLEX[key], scale=scale)
    return o.reshape(b, h, y, x, d)


def local_natten(backend):
    """NATTEN, whose windows are shifted at borders, without relative positions."""

    def call(q, k, v, window, scale, **_):
        import natten

        last = lambda t: t.permute(0, 2, 3, 1, 4).contiguous()
        options = {}
        if backend == "flex-fna" and q.is_cuda:
            natten.allow_flex_compile(True, backprop=True)
            options = {"torch_compile": True}
        o = natten.na2d(last(q), last(k), last(v), kernel_size=(window, window), scale=scale, backend=backend, **options)
        return o.permute(0, 3, 1, 2, 4)

    return call


# ---------------------------------------------------------------- content: q, k, v [b, h, y, x, d]


def content_matmul(q, k, v, **_):
    flat = lambda t: t.flatten(2, 3)
    return (flat(q) @ (flat(k).softmax(-2).transpose(-1, -2) @ flat(v))).reshape(q.shape[:-1] + v.shape[-1:])


def content_einsum(q, k, v, **_):
    k = k.flatten(2, 3).softmax(-2).reshape(k.shape)
    return torch.einsum("bhyxd,bhde->bhyxe", q, torch.einsum("bhyxd,bhyxe->bhde", k, v))


def content_fla(q, k, v, **_):
    """The chunked state of flash-linear-attention: forward only, the softmax by torch."""
    from fla.ops.common.chunk_h import chunk_fwd_h

    last = lambda t: t.flatten(2, 3).transpose(1, 2).contiguous()
    flat = k.flatten(2, 3).softmax(-2)
    _, state = chunk_fwd_h(flat.transpose(1, 2).contiguous(), last(v), output_final_state=True)
    return (q.flatten(2, 3) @ state.to(q.dtype)).reshape(q.shape[:-1] + v.shape[-1:])


# ---------------------------------------------------------------- axial: q, v [b, h, y, x, d], tables [1, 2L − 1, d]


def axial_one(q, v, table):
    """Along the second last axis of `[..., n, d]`: all offsets by one product, gathered."""
    n = q.shape[-2]
    scores = q @ table[0].t()
    at = torch.arange(n, device=q.device)
    offsets = at[None] - at[:, None] + n - 1
    return scores.gather(-1, offsets.expand(scores.shape[:-2] + offsets.shape)) @ v


def axial_bmm(q, v, columns, rows, **_):
    turn = lambda t: t.transpose(2, 3)
    return axial_one(q, turn(axial_one(turn(q), turn(v), columns)), rows)


def axial_einsum(q, v, columns, rows, **_):
    """The maths of gsa-pytorch: every table row laid out for every pair of positions."""

    def laid_out(table, n):
        at = torch.arange(n, device=q.device)
        return table[0][at[None] - at[:, None] + n - 1]

    y, x = q.shape[2:4]
    t = torch.einsum("bhyxd,yid,bhixe->bhyxe", q, laid_out(columns, y), v)
    return torch.einsum("bhyxd,xjd,bhyje->bhyxe", q, laid_out(rows, x), t)


# ---------------------------------------------------------------- gsa: q, k, v [b, h, y, x, d], tables [1, 2L − 1, d]


def gsa_bmm(q, k, v, columns, rows, **_):
    return content_matmul(q, k, v) + axial_bmm(q, v, columns, rows)


def gsa_einsum(q, k, v, columns, rows, **_):
    return content_einsum(q, k, v) + axial_einsum(q, v, columns, rows)


# ---------------------------------------------------------------- value_mixture: vs [m, b, h, y, x, e], tables [4, r], nu [m, r]


def mixture_weights(vs, emb_row, emb_col, nu):
    """The weights of every pixel: [m, 1, 1, y, x, 1]."""
    by_site = torch.einsum("mr,yxr->myx", nu, emb_row[:, None] + emb_col[None]).softmax(0)
    rows, columns = (torch.arange(n, device=vs.device) % t.shape[0] for n, t in ((vs.shape[3], emb_row), (vs.shape[4], emb_col)))
    return by_site[:, rows][:, :, columns][:, None, None, :, :, None].to(vs.dtype)


def mixture_sum(vs, emb_row, emb_col, nu, **_):
    """As public stems do it: products of all maps in memory, then their sum."""
    return (mixture_weights(vs, emb_row, emb_col, nu) * vs).sum(0)


def mixture_einsum(vs, emb_row, emb_col, nu, **_):
    return torch.einsum("myx,mbhyxe->bhyxe", mixture_weights(vs, emb_row, emb_col, nu)[:, 0, 0, :, :, 0], vs)


def compiled(op):
    ready = {}

    def call(*args, **kwargs):
        if not torch.cuda.is_available():
            raise NotImplementedError("torch.compile is not rehearsed on the CPU")
        if "op" not in ready:
            ready["op"] = torch.compile(op, dynamic=False)
        return ready["op"](*args, **kwargs)

    return call


def peers():
    """By problem (the files that `gpu problems` writes): names, and what they take."""
    local = {
        "torch unfold": local_unfold,
        "torch.compile(unfold)": compiled(local_unfold),
        "FlexAttention": local_flex,
    }
    backends = ("flex-fna", "cutlass-fna", "hopper-fna")
    return {
        "gaussian": {
            "torch matmul": gaussian_matmul,
            "torch.compile(matmul)": compiled(gaussian_matmul),
            "torch depthwise conv": gaussian_conv,
            "kornia": gaussian_kornia,
        },
        "local": local | {"SDPA with a mask": local_sdpa},
        "local_rel": local,
        "local_shift": {f"NATTEN {backend} (shifted windows)": local_natten(backend) for backend in backends},
        "content": {
            "torch matmul": content_matmul,
            "torch einsum": content_einsum,
            "torch.compile(matmul)": compiled(content_matmul),
            "flash-linear-attention": content_fla,
        },
        "axial": {
            "torch bmm": axial_bmm,
            "gsa-pytorch (einsum)": axial_einsum,
            "torch.compile(bmm)": compiled(axial_bmm),
        },
        "gsa": {
            "torch bmm": gsa_bmm,
            "gsa-pytorch (einsum)": gsa_einsum,
            "torch.compile(bmm)": compiled(gsa_bmm),
        },
        "value_mixture": {
            "torch product and sum": mixture_sum,
            "torch einsum": mixture_einsum,
            "torch.compile(product and sum)": compiled(mixture_sum),
        },
    }


def problems_of(entry):
    """Whose peers answer an entry of ours."""
    if entry["op"] != "local":
        return [entry["op"]]
    if entry["variant"] not in ("k7", "k7_rel", "k13", "k13_rel"):
        return []  # dilated windows and blocks
    return ["local_rel"] if entry["variant"].endswith("_rel") else ["local", "local_shift"]


# Names of arguments, and of our gradients of them.
GRADIENTS = {"v": "dv", "q": "dq", "k": "dk", "sigma": "dsigma", "rel_h": "drel_h", "rel_w": "drel_w", "columns": "dcolumns", "rows": "drows", "vs": "dvs", "emb_row": "demb_row", "emb_col": "demb_col", "nu": "dnu"}
ARGUMENTS = {"gaussian": ["v", "sigma"], "local": ["q", "k", "v", "rel_h", "rel_w"], "content": ["q", "k", "v"], "axial": ["q", "v", "columns", "rows"], "gsa": ["q", "k", "v", "columns", "rows"], "value_mixture": ["vs", "emb_row", "emb_col", "nu"]}


def read_safetensors(path):
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    settings = header.pop("__metadata__", {})
    body = bytearray(data[8 + size :])
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = torch.frombuffer(body[begin:end], dtype=torch.float32).reshape(entry["shape"]).clone()
    return settings, tensors


def off_by(got, want):
    return ((got.float() - want.float()).norm() / want.float().norm().clamp_min(1e-30)).item()


def check(op, call, settings, tensors, device):
    """None when all that this peer computes agrees with ours, with whether it has gradients; else the reason."""
    settings = {"window": int(settings["window"]), "scale": float(settings["scale"])} if op == "local" else {}
    args = {n: tensors[n].to(device).requires_grad_() for n in ARGUMENTS[op] if n in tensors}
    try:
        o = call(**args, **settings)
    except NotImplementedError as error:
        # FlexAttention has no backward on the CPU, where this is a rehearsal.
        if device.type == "cuda" or "backward on CPU" not in str(error):
            raise
        with torch.no_grad():
            o = call(**{n: t.detach() for n, t in args.items()}, **settings)
    error = off_by(o, tensors["o"].to(device))
    if not error < TOLERANCE:
        return f"results differ by {error:.1e}", False
    wanted = [n for n in args if GRADIENTS[n] in tensors]
    if not o.requires_grad or not wanted:
        return None, False
    try:
        grads = torch.autograd.grad(o, [args[n] for n in wanted], tensors["d_o"].to(device), allow_unused=True)
    except RuntimeError as error:
        return None, False
    for name, grad in zip(wanted, grads):
        # A convolution with taps of a fixed length has no gradient of sigma through `float(sigma)`, but of the taps.
        error = math.inf if grad is None else off_by(grad, tensors[GRADIENTS[name]].to(device))
        if not error < 5 * TOLERANCE:
            return None, False
    return None, True


def quantiles(samples):
    samples = sorted(samples)
    at = lambda part: samples[round((len(samples) - 1) * part)]
    return [statistics.median(samples), at(0.2), at(0.8)]


def timed(work, device, limit):
    """Microseconds per call: median, 20 % and 80 % quantiles."""
    work()
    samples, begin = [], time.monotonic()
    if device.type == "cuda":
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        while len(samples) < 50 and (len(samples) < 5 or time.monotonic() - begin < limit):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            stop.record()
            stop.synchronize()
            samples.append(start.elapsed_time(stop) * 1e3)
    else:
        while len(samples) < 2:
            before = time.perf_counter()
            work()
            samples.append((time.perf_counter() - before) * 1e6)
    return quantiles(samples)


def inputs(entry, device):
    shape, dtype = entry["shape"], {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[entry["dtype"]]
    b, h, y, x, d = shape
    random = lambda *s, size=1.0, t=dtype: ((torch.rand(*s, device=device) * 2 - 1) * size).to(t).requires_grad_()
    settings = {}
    if entry["op"] == "gaussian":
        radius = float(entry["variant"].removeprefix("radius"))
        args = {"v": random(*shape), "sigma": torch.tensor([radius], device=device, requires_grad=True)}
    elif entry["op"] == "local":
        window = int(entry["variant"].removeprefix("k").split("_")[0])
        args = {n: random(*shape) for n in "qkv"}
        if entry["variant"].endswith("_rel"):
            args |= {"rel_h": random(1, window, d // 2), "rel_w": random(1, window, d - d // 2)}
        settings = {"window": window, "scale": d**-0.5}
    elif entry["op"] == "content":
        args = {n: random(*shape) for n in "qkv"}
    elif entry["op"] == "value_mixture":
        args = {"vs": random(4, *shape)}
        args |= {n: random(4, 16, t=torch.float32) for n in ("emb_row", "emb_col", "nu")}
    else:
        args = {n: random(*shape) for n in ("qkv" if entry["op"] == "gsa" else "qv")}
        args |= {"columns": random(1, 2 * y - 1, d, size=0.05), "rows": random(1, 2 * x - 1, d, size=0.05)}
    return args, settings, random(*shape).detach()


def matrix_rate(device):
    """FLOP/s of a large bf16 product: the ceiling of the tensor cores."""
    n = 8192 if device.type == "cuda" else 256
    a, b = (torch.randn(n, n, device=device).to(torch.bfloat16) for _ in range(2))
    return 2 * n**3 / (timed(lambda: a @ b, device, 1.0)[0] * 1e-6)


def reason(error):
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--times", type=pathlib.Path, required=True)
    parser.add_argument("--problems", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    options = parser.parse_args()
    out = {"entries": [], "missing": {}}
    if torch is None:
        out["missing"]["every peer"] = f"torch: {TORCH_ERROR}"
        print(out["missing"]["every peer"])
        options.out.write_text(json.dumps(out, indent=1))
        return 0
    begin = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    out["torch"], out["matrix_flops_per_second"] = torch.__version__, matrix_rate(device)

    usable = {}
    for path in sorted(options.problems.glob("*.safetensors")):
        settings, tensors = read_safetensors(path)
        for name, call in peers().get(path.stem, {}).items():
            what = f"{path.stem}: {name}"
            try:
                wrong, has_gradients = check(settings["op"], call, settings, tensors, device)
            except Exception as error:  # a peer may fail in any way, and the others still run
                wrong = reason(error)
            if wrong:
                out["missing"][what] = wrong
                print(f"{what}: {wrong}")
            else:
                usable[path.stem, name] = (call, has_gradients)
                print(f"{what}: agrees{'' if has_gradients else ', forward only'}")

    for entry in json.loads(options.times.read_text())["entries"]:
        if "time" not in entry:
            continue
        label = " ".join(entry[key] for key in ("op", "variant", "pass", "dtype", "layer"))
        if time.monotonic() - begin > options.seconds:
            out["missing"][label] = "no time left"
            continue
        if not problems_of(entry):
            continue
        args, settings, d_o = inputs(entry, device)
        for (problem, name), (call, has_gradients) in usable.items():
            if problem not in problems_of(entry) or (entry["pass"] == "backward" and not has_gradients):
                continue
            try:
                if entry["pass"] == "forward":
                    plain = {n: t.detach() for n, t in args.items()}
                    with torch.no_grad():
                        us = timed(lambda: call(**plain, **settings), device, 0.3)
                else:
                    o = call(**args, **settings)
                    work = lambda: torch.autograd.grad(o, list(args.values()), d_o, retain_graph=True)
                    us = timed(work, device, 0.3)
                    del o
                keys = ("op", "pass", "variant", "layer", "dtype")
                out["entries"].append({key: entry[key] for key in keys} | {"peer": name, "us": us})
                print(f"{label}: {name}: {us[0]:.1f} µs")
            except Exception as error:
                out["missing"][f"{label}: {name}"] = reason(error)
                print(f"{label}: {name}: {reason(error)}")
            if device.type == "cuda":
                torch.cuda.empty_cache()
    options.out.write_text(json.dumps(out, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
