"""Optimizers, gradient transforms, schedules, initializers and metrics, and what goes wrong."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fnn import initializers, metrics, optim, schedules
from fnn.types import Metric, Optimizer, Transform
from tests.mutants.blocks import F32, integers, normal
from tests.mutants.family import Family


def variants(make, *bugs):
    """The broken constructors."""
    return {bug: partial(make, bug=bug) for bug in bugs}


def each(function, *trees):
    """`function` of corresponding leaves, which gives tuples; a tuple of trees."""
    out = jax.tree.map(function, *trees)
    outer = jax.tree.structure(trees[0])
    inner = jax.tree.structure(
        (0,) * len(jax.tree.leaves(out)[: len(jax.tree.leaves(out)) // max(outer.num_leaves, 1)])
    )
    return jax.tree.transpose(outer, inner, out)


# Optimizers.


def momentum(momentum=0.9, bug=None):
    m_ = momentum

    def init(params):
        return jax.tree.map(jnp.ones_like if bug == "buffer of ones" else jnp.zeros_like, params)

    def update(grads, state, params, lr, objective=None):
        if bug == "old buffer is returned":
            new = jax.tree.map(lambda m, g: m_ * m + g, state, grads)
            return jax.tree.map(lambda m: -lr * m, new), state
        if bug == "buffer is not read":
            return jax.tree.map(lambda g: -lr * g, grads), grads
        if bug == "lr is in the buffer twice":
            new = jax.tree.map(lambda m, g: m_ * m + lr * g, state, grads)
            return jax.tree.map(lambda m: -lr * m, new), new
        if bug == "sign":
            new = jax.tree.map(lambda m, g: m_ * m + g, state, grads)
            return jax.tree.map(lambda m: lr * m, new), new
        if bug == "momentum and its complement swapped":
            new = jax.tree.map(lambda m, g: (1 - m_) * m + g, state, grads)
        elif bug == "damped":
            new = jax.tree.map(lambda m, g: m_ * m + (1 - m_) * g, state, grads)
        elif bug == "fixed at 0.9":
            new = jax.tree.map(lambda m, g: 0.9 * m + g, state, grads)
        elif bug == "parameter instead of gradient":
            new = jax.tree.map(lambda m, g, p: m_ * m + g + 0.01 * p, state, grads, params)
        elif bug == "in bfloat16":
            new = jax.tree.map(
                lambda m, g: (m_ * m + g).astype(jnp.bfloat16).astype(g.dtype), state, grads
            )
        elif bug == "norm of each leaf":
            new = jax.tree.map(lambda m, g: m_ * m + g / (1 + jnp.linalg.norm(g)), state, grads)
        elif bug == "norm of all leaves":
            norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
            new = jax.tree.map(lambda m, g: m_ * m + g / (1 + norm), state, grads)
        elif bug == "state becomes float16":
            new = jax.tree.map(lambda m, g: (m_ * m + g).astype(jnp.float16), state, grads)
        else:
            new = jax.tree.map(lambda m, g: m_ * m + g, state, grads)
        if bug == "lr squared":
            return jax.tree.map(lambda m: -lr * lr * m, new), new
        if bug == "first leaf is left out":
            leaves, structure = jax.tree.flatten(new)
            leaves[0] = 0 * leaves[0]
            return jax.tree.unflatten(structure, [-lr * m for m in leaves]), new
        if bug == "new parameters instead of updates":
            return jax.tree.map(lambda p, m: p - lr * m, params, new), new
        return jax.tree.map(lambda m: -lr * m, new), new

    return Optimizer(init, update)


def nesterov(momentum=0.9, bug=None):
    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(grads, state, params, lr, objective=None):
        new = jax.tree.map(lambda m, g: momentum * m + g, state, grads)
        ahead = jax.tree.map(lambda m, g: momentum * m + g, new, grads)
        if bug == "old buffer looks ahead":
            ahead = jax.tree.map(lambda m, g: momentum * m + g, state, grads)
        if bug == "without the gradient":
            ahead = jax.tree.map(lambda m: momentum * m, new)
        if bug == "looks ahead twice":
            ahead = jax.tree.map(lambda m, g: momentum * m + g, ahead, grads)
        if bug == "gradient twice":
            ahead = jax.tree.map(lambda m, g: momentum * m + 2 * g, new, grads)
        if bug == "keeps the look ahead":
            return jax.tree.map(lambda a: -lr * a, ahead), ahead
        return jax.tree.map(lambda a: -lr * a, ahead), new

    return Optimizer(init, update)


def adam(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, bug=None):
    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        v = zeros if bug == "moments share one buffer" else jax.tree.map(jnp.zeros_like, params)
        step = 0 if bug == "step is a Python number" else jnp.int32(0)
        return {"m": zeros, "v": v, "step": step}

    def update(grads, state, params, lr, objective=None):
        step = state["step"] + 1
        if bug == "step is not counted":
            step = state["step"]
            t = (step + 1).astype(F32)
        elif bug == "step from zero":
            t = jnp.maximum(state["step"].astype(F32), 0) + 1e-3
        elif bug == "step one ahead":
            t = (step + 1).astype(F32)
        else:
            t = jnp.asarray(step).astype(F32)
        d1, d2 = (b2, b1) if bug == "decay rates swapped" else (b1, b2)

        def leaf(g, m, v, p):
            if bug == "decay in the gradient":
                g = g + weight_decay * p
            m = d1 * m + (1 - d1) * g
            if bug == "gradient is not squared":
                v = d2 * v + (1 - d2) * jnp.abs(g)
            elif bug == "square of the momentum":
                v = d2 * v + (1 - d2) * m**2
            elif bug == "mean of the squares":
                v = d2 * v + (1 - d2) * jnp.mean(g**2)
            elif bug == "largest second moment":
                v = jnp.maximum(v, d2 * v + (1 - d2) * g**2)
            else:
                v = d2 * v + (1 - d2) * g**2
            m_hat, v_hat = m / (1 - d1**t), v / (1 - d2**t)
            if bug == "no correction":
                m_hat, v_hat = m, v
            if bug == "first moment is not corrected":
                m_hat = m
            if bug == "second moment is not corrected":
                v_hat = v
            if bug == "corrections swapped":
                m_hat, v_hat = m / (1 - d2**t), v / (1 - d1**t)
            root = jnp.sqrt(v_hat) + eps
            if bug == "eps inside the root":
                root = jnp.sqrt(v_hat + eps)
            if bug == "eps before the correction":
                root = (jnp.sqrt(v) + eps) / jnp.sqrt(1 - d2**t)
            if bug == "no eps":
                root = jnp.sqrt(v_hat)
            if bug == "no root":
                root = v_hat + eps
            if bug == "cube root":
                root = jnp.cbrt(v_hat) + eps
            if bug == "eps is fixed":
                root = jnp.sqrt(v_hat) + 1e-8
            u = m_hat / root
            if bug == "gradient instead of momentum":
                u = g / root
            if bug == "clipped at one":
                u = jnp.clip(u, -0.9, 0.9)
            decay = weight_decay * p
            if bug == "decay without lr":
                return -lr * u - decay, m, v
            if bug == "decay is added":
                return -lr * (u - decay), m, v
            if bug == "decay twice":
                return -lr * (u + 2 * decay), m, v
            if bug == "decay of matrices only" and p.ndim < 2:
                return -lr * u, m, v
            if bug == "decay of the new parameter":
                return -lr * (u + weight_decay * (p - lr * u)), m, v
            if bug == "decay of the update's size":
                return -lr * (u + weight_decay * jnp.sign(p)), m, v
            if bug == "decay in the gradient":
                decay = 0 * p
            return -lr * (u + decay), m, v

        updates, m, v = each(leaf, grads, state["m"], state["v"], params)
        new = {"m": m, "v": v, "step": step}
        if bug == "moments swapped in the state":
            new = {"m": v, "v": m, "step": step}
        if bug == "second moment is not kept":
            new["v"] = state["v"]
        if bug == "state is changed in place":
            state.update(new)
            return updates, state
        if bug == "step becomes a float":
            new["step"] = new["step"] * 1.0
        return updates, new

    return Optimizer(init, update)


def adamw(weight_decay=0.1, b1=0.9, bug=None):
    return adam(b1=b1, weight_decay=weight_decay, bug=bug)


def lion(b1=0.9, b2=0.99, weight_decay=0.0, bug=None):
    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(grads, state, params, lr, objective=None):
        def leaf(g, m, p):
            d1, d2 = (b2, b1) if bug == "decay rates swapped" else (b1, b2)
            c = d1 * m + (1 - d1) * g
            if bug == "sign of the gradient":
                c = g
            if bug == "sign of the buffer":
                c = m
            u = c if bug == "no sign" else jnp.sign(c)
            if bug == "soft sign":
                u = jnp.tanh(c)
            if bug == "sign by comparison":
                u = jnp.where(c >= 0, 1.0, -1.0)
            new = d2 * m + (1 - d2) * g
            if bug == "one average for both":
                new = c
            if bug == "sign in the buffer":
                new = d2 * m + (1 - d2) * jnp.sign(g)
            return -lr * (u + weight_decay * p), new

        return each(leaf, grads, state, params)

    return Optimizer(init, update)


def rmsprop(decay=0.9, eps=1e-3, bug=None):
    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(grads, state, params, lr, objective=None):
        def leaf(g, v):
            v = decay * v + (1 - decay) * g**2
            if bug == "sum of squares":
                v = v + g**2
            if bug == "variance around the mean":
                return -lr * g / (jnp.sqrt(jnp.maximum(v - g**2 * 0.5, 0)) + eps), v
            if bug == "eps inside the root":
                return -lr * g / jnp.sqrt(v + eps), v
            if bug == "no root":
                return -lr * g / (v + eps), v
            if bug == "old average":
                return -lr * g / (jnp.sqrt((v - (1 - decay) * g**2) / decay) + eps), v
            if bug == "one average for a leaf":
                return -lr * g / (jnp.sqrt(v.mean()) + eps), v
            if bug == "sign of the gradient":
                return -lr * jnp.sign(g) / (jnp.sqrt(v) + eps), v
            return -lr * g / (jnp.sqrt(v) + eps), v

        return each(leaf, grads, state)

    return Optimizer(init, update)


def accumulated(bug=None, every=2):
    """SGD on the mean of two gradients."""

    def init(params):
        return {"sum": jax.tree.map(jnp.zeros_like, params), "step": jnp.int32(0)}

    def update(grads, state, params, lr, objective=None):
        step = state["step"] + 1
        total = jax.tree.map(jnp.add, state["sum"], grads)
        due = step % every == 0
        if bug == "a step early":
            due = (step + 1) % every == 0
        if bug == "every step":
            due = step > 0
        divisor = 1 if bug == "sum instead of mean" else every
        if bug == "divided by the step":
            divisor = step.astype(F32)
        updates = jax.tree.map(lambda s: jnp.where(due, -lr * s / divisor, 0), total)
        if bug == "last gradient only":
            updates = jax.tree.map(lambda g: jnp.where(due, -lr * g, 0), grads)
        keep = jnp.where(due, 0, 1).astype(F32)
        if bug == "sum is not reset":
            keep = F32(1)
        if bug == "first gradient of a group is lost":
            total = jax.tree.map(
                lambda s, t: jnp.where(step % every == 1, s, t), state["sum"], total
            )
        if bug == "a part of the sum is kept":
            keep = jnp.where(due, 0.1, 1.0).astype(F32)
        return updates, {"sum": jax.tree.map(lambda s: s * keep, total), "step": step}

    return Optimizer(init, update, steps_per_update=every)


def averaged(decay=0.9, bug=None):
    """SGD with an exponential average of the parameters for evaluation."""

    def init(params):
        start = jnp.zeros_like if bug == "average starts at zero" else jnp.copy
        return {"average": jax.tree.map(start, params), "step": jnp.int32(0)}

    def update(grads, state, params, lr, objective=None):
        updates = jax.tree.map(lambda g: -lr * g, grads)
        new = jax.tree.map(jnp.add, params, updates)
        d = 1 - decay if bug == "decay swapped" else decay
        source = params if bug == "average of the old parameters" else new
        if bug == "average of the updates":
            source = updates
        average = jax.tree.map(lambda a, p: d * a + (1 - d) * p, state["average"], source)
        if bug == "weights add to more than one":
            average = jax.tree.map(lambda a, p: decay * a + 0.2 * p, state["average"], new)
        if bug == "average never moves":
            average = state["average"]
        return updates, {"average": average, "step": state["step"] + 1}

    def weights(state, params):
        return params if bug == "evaluates the parameters" else state["average"]

    return Optimizer(init, update, weights=weights)


def ema_of_sgd(decay=0.9):
    return optim.ema(optim.sgd(), decay=decay)


def adagrad(eps=1e-3, bug=None):
    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(grads, state, params, lr, objective=None):
        def leaf(g, v):
            new = v + g**2
            if bug == "average instead of sum":
                new = 0.9 * v + 0.1 * g**2
            if bug == "old sum":
                return -lr * g / (jnp.sqrt(v) + eps), new
            if bug == "sum of absolute values":
                new = v + jnp.abs(g)
            if bug == "no root":
                return -lr * g / (new + eps), new
            if bug == "sum is never returned":
                return -lr * g / (jnp.sqrt(new) + eps), v
            return -lr * g / (jnp.sqrt(new) + eps), new

        return each(leaf, grads, state)

    return Optimizer(init, update)


def adagrad_reference(eps=1e-3):
    def init(params):
        return (jax.tree.map(jnp.zeros_like, params),)

    def update(grads, state, params, lr, objective=None):
        total = jax.tree.map(lambda v, g: v + jnp.square(g), state[0], grads)
        return jax.tree.map(lambda g, v: -lr * g / (v**0.5 + eps), grads, total), (total,)

    return Optimizer(init, update)


def rmsprop_reference(decay=0.9, eps=1e-3):
    def init(params):
        return (jax.tree.map(jnp.zeros_like, params),)

    def update(grads, state, params, lr, objective=None):
        v = jax.tree.map(lambda v, g: v + (1 - decay) * (g * g - v), state[0], grads)
        return jax.tree.map(lambda g, v: -lr * g / (v**0.5 + eps), grads, v), (v,)

    return Optimizer(init, update)


# Gradient transforms.


def clip_norm(max_norm=0.5, bug=None):
    def update(grads, state, params):
        squares = jax.tree.map(lambda g: jnp.sum(g**2), grads)
        norm = jnp.sqrt(sum(jax.tree.leaves(squares)))
        factor = jnp.minimum(1.0, max_norm / jnp.maximum(norm, 1e-12))
        if bug == "norm without a guard":
            factor = jnp.minimum(1.0, max_norm / norm)
        if bug == "norm is not rooted":
            factor = jnp.minimum(1.0, max_norm / jnp.maximum(norm**2, 1e-12))
        if bug == "always scaled":
            factor = max_norm / jnp.maximum(norm, 1e-12)
        if bug == "maximum instead of minimum":
            factor = jnp.maximum(1.0, max_norm / jnp.maximum(norm, 1e-12))
        if bug == "each leaf by itself":
            return jax.tree.map(
                lambda g, s: g * jnp.minimum(1.0, max_norm / jnp.maximum(jnp.sqrt(s), 1e-12)),
                grads,
                squares,
            ), state
        if bug == "by value":
            return jax.tree.map(lambda g: jnp.clip(g, -max_norm, max_norm), grads), state
        if bug == "bound is fixed":
            factor = jnp.minimum(1.0, 1.0 / jnp.maximum(norm, 1e-12))
        if bug == "first leaf only":
            first = jnp.sqrt(jax.tree.leaves(squares)[0])
            factor = jnp.minimum(1.0, max_norm / jnp.maximum(first, 1e-12))
        return jax.tree.map(lambda g: g * factor, grads), state

    return Transform(lambda params: (), update)


def clip_value(max_value=0.3, bug=None):
    def update(grads, state, params):
        if bug == "one side":
            return jax.tree.map(lambda g: jnp.minimum(g, max_value), grads), state
        if bug == "absolute values":
            return jax.tree.map(lambda g: jnp.clip(jnp.abs(g), 0, max_value), grads), state
        if bug == "by the largest of a leaf":
            return jax.tree.map(
                lambda g: g * jnp.minimum(1, max_value / jnp.abs(g).max()), grads
            ), state
        if bug == "zeroed instead of clipped":
            return jax.tree.map(lambda g: jnp.where(jnp.abs(g) > max_value, 0, g), grads), state
        return jax.tree.map(lambda g: jnp.clip(g, -max_value, max_value), grads), state

    return Transform(lambda params: (), update)


# Schedules.


def warm(peak=1.0, warmup_steps=4, total_steps=20, end=0.1, bug=None):
    def schedule(step):
        step = jnp.asarray(step).astype(F32)
        if bug == "steps from one":
            step = step + 1
        up = peak * step / warmup_steps
        if bug == "warm-up from one":
            up = peak * (step + 1) / warmup_steps
        if bug == "warm-up is integer":
            up = peak * (step // warmup_steps)
        done = (step - warmup_steps) / (total_steps - warmup_steps)
        if bug == "fraction of all steps":
            done = (step - warmup_steps) / total_steps
        if bug != "not clipped":
            done = jnp.clip(done, 0, 1)
        down = end + (peak - end) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        if bug == "half the cosine":
            down = end + (peak - end) * jnp.cos(jnp.pi / 2 * done)
        if bug == "cosine of a whole turn":
            down = end + (peak - end) * 0.5 * (1 + jnp.cos(2 * jnp.pi * done))
        if bug == "end is added":
            down = end + peak * 0.5 * (1 + jnp.cos(jnp.pi * done))
        if bug == "sine":
            down = end + (peak - end) * 0.5 * (1 + jnp.sin(jnp.pi * done))
        if bug == "end is a fraction of zero":
            down = peak * 0.5 * (1 + jnp.cos(jnp.pi * done))
        if bug == "warm-up of one step more":
            return jnp.where(
                step <= warmup_steps + 1, jnp.minimum(peak * step / (warmup_steps + 1), peak), down
            )
        if bug == "jump after the warm-up":
            return jnp.where(step < warmup_steps, up, 0.8 * down)
        if bug == "no warm-up":
            return down
        return jnp.where(step < warmup_steps, up, down)

    return schedule


def linear(start=1.0, end=0.1, total_steps=10, bug=None):
    def schedule(step):
        f = jnp.asarray(step).astype(F32) / total_steps
        if bug == "an end early":
            f = jnp.asarray(step).astype(F32) / (total_steps - 1)
        if bug == "integer division":
            f = (jnp.asarray(step) // total_steps).astype(F32)
        if bug == "goes on below the end":
            return start + (end - start) * f
        f = jnp.minimum(f, 1)
        if bug == "start and end swapped":
            return end + (start - end) * f
        if bug == "to zero":
            return start * (1 - f)
        if bug == "quadratic":
            return start + (end - start) * f**2
        return start + (end - start) * f

    return schedule


def exponential(start=1.0, rate=0.5, decay_steps=4, bug=None):
    def schedule(step):
        t = jnp.minimum(jnp.asarray(step).astype(F32), 100000.0) / decay_steps
        if bug == "staircase":
            t = jnp.floor(t)
        if bug == "rate by step":
            t = t * decay_steps
        if bug == "natural exponential":
            return start * jnp.exp(-rate * t)
        if bug == "steps count twice":
            t = 2 * t
        if bug == "starts at the first decay":
            t = t + 1
        return start * rate**t

    return schedule


def cycles(low=0.1, high=1.0, period=8, bug=None):
    def schedule(step):
        step = jnp.asarray(step)
        p = period + 1 if bug == "period of one more" else period
        t = (step % p).astype(F32) / p
        if bug == "no remainder":
            t = jnp.minimum(step.astype(F32) / p, 1)
        if bug == "phase from the second step":
            t = ((step + 1) % p).astype(F32) / p
        if bug == "half a turn":
            return low + (high - low) * 0.5 * (1 + jnp.cos(jnp.pi * t / 2))
        if bug == "low and high swapped":
            return high + (low - high) * 0.5 * (1 + jnp.cos(jnp.pi * t))
        return low + (high - low) * 0.5 * (1 + jnp.cos(jnp.pi * t))

    return schedule


def inverse_root(peak=1.0, warmup_steps=4, bug=None):
    def schedule(step):
        s = jnp.asarray(step).astype(F32)
        up = peak * s / warmup_steps
        down = peak * jnp.sqrt(warmup_steps / jnp.maximum(s, 1))
        if bug == "inverse":
            down = peak * warmup_steps / jnp.maximum(s, 1)
        if bug == "not scaled by the warm-up":
            down = peak / jnp.sqrt(jnp.maximum(s, 1))
        if bug == "division by zero":
            down = peak * jnp.sqrt(warmup_steps / s)
            return jnp.minimum(up, down) * (s / s)
        if bug == "maximum":
            return jnp.maximum(up, down)
        return jnp.minimum(up, down)

    return schedule


# Initializers.


def glorot(key, shape, dtype=F32, bug=None):
    field = int(np.prod(shape[:-2]))
    fan_in, fan_out = shape[-2] * field, shape[-1] * field
    if bug == "receptive field is not counted":
        fan_in, fan_out = shape[-2:]
    limit = np.sqrt(6 / (fan_in + fan_out))
    if bug == "standard deviation as limit":
        limit = np.sqrt(2 / (fan_in + fan_out))
    if bug == "fan in twice":
        limit = np.sqrt(6 / (2 * fan_in))
    if bug == "three instead of six":
        limit = np.sqrt(3 / (fan_in + fan_out))
    if bug == "from zero":
        return jax.random.uniform(key, shape, dtype) * np.asarray(limit, dtype)
    if bug == "the key is ignored":
        key = jax.random.key(0)
    if bug == "one row for all":
        row = jax.random.uniform(key, shape[-1:], dtype, -limit, limit)
        return jnp.broadcast_to(row, shape)
    if bug == "float32 whatever is asked":
        return jax.random.uniform(key, shape, F32, -limit, limit)
    return jax.random.uniform(key, shape, dtype, -limit, limit)


def he(key, shape, dtype=F32, bug=None):
    field = int(np.prod(shape[:-2]))
    fan = shape[-2] * field
    if bug == "fan out":
        fan = shape[-1] * field
    if bug == "last axis as input":
        fan = shape[0]
    gain = {"gain of one": 1.0, "gain squared": 4.0}.get(bug, 2.0)
    std = np.sqrt(gain / fan)
    if bug == "variance as standard deviation":
        std = gain / fan
    z = jax.random.normal(key, shape, dtype)
    if bug == "absolute values":
        z = jnp.abs(z)
    if bug == "same as its transpose" and shape[-1] == shape[-2]:
        z = z + z.swapaxes(-1, -2)
    if bug == "cut without rescaling":
        z = jax.random.truncated_normal(key, -2, 2, shape, dtype)
    if bug == "mean of a tenth":
        z = z + jnp.asarray(0.3, dtype)
    if bug == "NumPy's generator":
        z = jnp.asarray(np.random.normal(size=shape), dtype)
    return z * np.asarray(std, dtype)


def orthogonal(key, shape, dtype=F32, bug=None):
    rows, cols = int(np.prod(shape[:-1])), shape[-1]
    size = (max(rows, cols), min(rows, cols))
    q, r = jnp.linalg.qr(jax.random.normal(key, size, F32))
    signs = jnp.sign(jnp.diagonal(r))
    if bug == "signs are not fixed":
        signs = -jnp.ones_like(signs)
        q = q * jnp.sign(q[:1])
    if bug == "R instead of Q":
        q = jnp.pad(r, ((0, size[0] - size[1]), (0, 0)))
    if bug == "uniform instead of normal draws, not orthogonal":
        q = jax.random.normal(key, size, F32) / np.float32(np.sqrt(size[0]))
    q = q * signs
    if bug == "scaled by its size":
        q = q * jnp.arange(1, size[1] + 1, dtype=F32)
    if rows < cols:
        q = q.T
    if bug == "orthogonal within an axis only" and len(shape) > 2:
        base = jax.random.normal(key, shape[-2:], F32)
        q = jnp.broadcast_to(base, shape).reshape(rows, cols)
    return q.reshape(shape).astype(dtype)


# Metrics.


def accuracy(bug=None):
    def measure(logits, labels):
        found = jnp.argmax(logits, axis=0 if bug == "argmax over the batch" else -1)
        if bug == "argmin":
            found = jnp.argmin(logits, axis=-1)
        if bug == "last class is never found":
            found = jnp.argmax(logits[:, :-1], axis=-1)
        if bug == "argmax over the batch":
            found = jnp.resize(found, labels.shape)
        hits = (found == labels).astype(F32)
        if bug == "mean in measure":
            return {"hits": hits.mean(), "count": F32(1)}
        if bug == "count in bfloat16":
            return {"hits": hits.sum().astype(jnp.bfloat16), "count": jnp.bfloat16(len(hits))}
        if bug == "count in 8 bits":
            return {"hits": hits.sum().astype(jnp.int8), "count": jnp.int8(len(hits))}
        if bug == "within one class":
            hits = (jnp.abs(found - labels) <= 1).astype(F32)
        if bug == "first example twice":
            hits = hits.at[0].multiply(2)
        if bug == "misses":
            hits = 1 - hits
        if bug == "hits of each example":
            return {"hits": hits, "count": F32(len(hits))}
        if bug == "weights by position":
            hits = hits * jnp.arange(len(hits), dtype=F32)
        return {"hits": hits.sum(), "count": F32(len(hits))}

    def value(sums):
        if bug == "hits of each example":
            return sums["hits"].sum() / jnp.maximum(sums["count"], 1)
        count = sums["count"].astype(F32)
        if bug == "division by zero":
            return sums["hits"].astype(F32) / count
        if bug == "a count of one more":
            return sums["hits"].astype(F32) / (count + 1)
        return sums["hits"].astype(F32) / jnp.maximum(count, 1)

    return Metric(measure, value)


def r_squared(bug=None):
    def measure(y, t):
        error = jnp.sum((y - t) ** 2)
        if bug == "mean of the batch in measure":
            total = jnp.sum((t - t.mean()) ** 2)
            return {"error": error, "total": total, "sum": t.sum(), "count": F32(len(t))}
        if bug == "absolute errors":
            error = jnp.abs(y - t).sum()
        return {"error": error, "total": jnp.sum(t**2), "sum": t.sum(), "count": F32(len(t))}

    def value(s):
        total = s["total"] - s["sum"] ** 2 / jnp.maximum(s["count"], 1)
        if bug == "mean of the batch in measure":
            total = s["total"]
        if bug == "around zero":
            total = s["total"]
        if bug == "square is not divided":
            total = s["total"] - (s["sum"] / jnp.maximum(s["count"], 1)) ** 2
        ratio = s["error"] / jnp.maximum(total, 1e-12)
        if bug == "not one minus":
            return ratio
        if bug == "swapped":
            return 1 - jnp.maximum(total, 1e-12) / jnp.maximum(s["error"], 1e-12)
        if bug == "root":
            return 1 - jnp.sqrt(ratio)
        return 1 - ratio

    return Metric(measure, value)


def f1(bug=None):
    """Of the positive class, from logits of one unit and labels 0 and 1."""

    def measure(y, t):
        found = (y > 0) if bug != "at least zero" else (y >= 0)
        if bug == "threshold of a half":
            found = y > 0.5
        found, t = found.astype(F32), t.astype(F32)
        if bug == "rate in measure":
            hits = (found * t).sum()
            f = 2 * hits / jnp.maximum(found.sum() + t.sum(), 1)
            return {"hits": f, "found": F32(1), "true": F32(1)}
        return {"hits": (found * t).sum(), "found": found.sum(), "true": t.sum()}

    def value(s):
        if bug == "rate in measure":
            return s["hits"] / jnp.maximum(s["found"], 1)
        if bug == "precision":
            return s["hits"] / jnp.maximum(s["found"], 1)
        if bug == "recall":
            return s["hits"] / jnp.maximum(s["true"], 1)
        if bug == "half of it":
            return s["hits"] / jnp.maximum(s["found"] + s["true"], 1)
        if bug == "mean of precision and recall":
            return 0.5 * (
                s["hits"] / jnp.maximum(s["found"], 1) + s["hits"] / jnp.maximum(s["true"], 1)
            )
        if bug == "division by zero":
            return 2 * s["hits"] / (s["found"] + s["true"])
        return 2 * s["hits"] / jnp.maximum(s["found"] + s["true"], 1)

    return Metric(measure, value)


def numpy_r_squared(y, t):
    y, t = np.asarray(y, np.float64), np.asarray(t, np.float64)
    return 1 - ((y - t) ** 2).sum() / max(((t - t.mean()) ** 2).sum(), 1e-12)


def numpy_f1(y, t):
    y, t = np.asarray(y) > 0, np.asarray(t) > 0
    hits = (y & t).sum()
    return 2 * hits / max(y.sum() + t.sum(), 1)


def numpy_accuracy(logits, labels):
    return np.mean(np.argmax(logits, axis=-1) == labels)


LOGITS, LABELS = normal(8, 4), integers(8, below=4, seed=3)
Y, T = normal(9), normal(9, seed=1) + normal(9)
FLAGS = integers(9, below=2, seed=5)
ADAM = {"b1": 0.9, "b2": 0.99, "eps": 1e-6}

FAMILIES = [
    Family(
        kind="optimizer",
        name="momentum by hand",
        base=momentum,
        args=({"momentum": 0.9},),
        needed={"lr": 0.02},
        like={"like": lambda momentum: optim.sgd(momentum=momentum)},
        bugs=variants(
            momentum,
            "buffer of ones",
            "old buffer is returned",
            "buffer is not read",
            "lr is in the buffer twice",
            "sign",
            "momentum and its complement swapped",
            "damped",
            "fixed at 0.9",
            "parameter instead of gradient",
            "in bfloat16",
            "norm of each leaf",
            "norm of all leaves",
            "state becomes float16",
            "lr squared",
            "first leaf is left out",
            "new parameters instead of updates",
        ),
    ),
    Family(
        kind="optimizer",
        name="Nesterov by hand",
        base=nesterov,
        args=({"momentum": 0.9},),
        needed={"lr": 0.02},
        like={"like": lambda momentum: optim.sgd(momentum=momentum, nesterov=True)},
        bugs=variants(
            nesterov,
            "old buffer looks ahead",
            "without the gradient",
            "looks ahead twice",
            "gradient twice",
            "keeps the look ahead",
        ),
    ),
    Family(
        kind="optimizer",
        name="Adam by hand",
        base=adam,
        args=(ADAM,),
        declared={"bias_corrected": True, "scale_invariant": True, "eps": "eps"},
        like={"like": lambda b1, b2, eps: optim.adam(b1=b1, b2=b2, eps=eps)},
        bugs=variants(
            adam,
            "moments share one buffer",
            "step is not counted",
            "step from zero",
            "step one ahead",
            "decay rates swapped",
            "gradient is not squared",
            "square of the momentum",
            "mean of the squares",
            "largest second moment",
            "no correction",
            "first moment is not corrected",
            "second moment is not corrected",
            "corrections swapped",
            "eps inside the root",
            "eps before the correction",
            "no eps",
            "no root",
            "cube root",
            "eps is fixed",
            "gradient instead of momentum",
            "clipped at one",
            "moments swapped in the state",
            "second moment is not kept",
            "state is changed in place",
            "step becomes a float",
        ),
    ),
    Family(
        kind="optimizer",
        name="AdamW by hand",
        base=adamw,
        args=({"weight_decay": 0.1},),
        needed={"decays": True},
        declared={"decay": "weight_decay"},
        like={"like": lambda weight_decay: optim.adamw(weight_decay=weight_decay)},
        bugs=variants(
            adamw,
            "decay in the gradient",
            "decay without lr",
            "decay is added",
            "decay twice",
            "decay of matrices only",
            "decay of the new parameter",
            "decay of the update's size",
        ),
    ),
    Family(
        kind="optimizer",
        name="Lion by hand",
        base=lion,
        args=({"b1": 0.9, "b2": 0.99},),
        needed={"lr": 0.01},
        declared={"scale_invariant": True},
        like={"like": lambda b1, b2: optim.lion(b1=b1, b2=b2)},
        bugs=variants(
            lion,
            "decay rates swapped",
            "sign of the gradient",
            "sign of the buffer",
            "no sign",
            "soft sign",
            "sign by comparison",
            "one average for both",
            "sign in the buffer",
        ),
    ),
    Family(
        kind="optimizer",
        name="RMSprop by hand",
        base=rmsprop,
        args=({"decay": 0.9, "eps": 1e-3},),
        needed={"lr": 0.01},
        declared={"eps": "eps"},
        like={"like": rmsprop_reference},
        bugs=variants(
            rmsprop,
            "sum of squares",
            "variance around the mean",
            "eps inside the root",
            "no root",
            "old average",
            "one average for a leaf",
            "sign of the gradient",
        ),
    ),
    Family(
        kind="optimizer",
        name="AdaGrad by hand",
        base=adagrad,
        args=({"eps": 1e-3},),
        declared={"eps": "eps"},
        like={"like": adagrad_reference},
        bugs=variants(
            adagrad,
            "average instead of sum",
            "old sum",
            "sum of absolute values",
            "no root",
            "sum is never returned",
        ),
    ),
    Family(
        kind="optimizer",
        name="accumulation by hand",
        base=accumulated,
        args=({},),
        declared={"accumulates": 2},
        like={"like": lambda: optim.accumulate(optim.sgd(), steps=2)},
        bugs=variants(
            accumulated,
            "a step early",
            "every step",
            "sum instead of mean",
            "divided by the step",
            "last gradient only",
            "sum is not reset",
            "first gradient of a group is lost",
            "a part of the sum is kept",
        ),
    ),
    Family(
        kind="optimizer",
        name="average of the parameters by hand",
        base=averaged,
        args=({"decay": 0.9},),
        needed={
            "skip": {"scalars_may_be_swept": "the decay moves the weights for evaluation only"}
        },
        bugs=variants(
            averaged,
            "average starts at zero",
            "average of the updates",
            "weights add to more than one",
            "average never moves",
        ),
    ),
    Family(
        kind="transform",
        name="clip of the global norm by hand",
        base=clip_norm,
        args=({"max_norm": 0.5},),
        declared={"max_norm": "max_norm", "keeps_direction": True},
        like={"like": lambda max_norm: optim.clip_by_global_norm(max_norm)},
        bugs=variants(
            clip_norm,
            "norm without a guard",
            "norm is not rooted",
            "always scaled",
            "maximum instead of minimum",
            "each leaf by itself",
            "by value",
            "bound is fixed",
            "first leaf only",
        ),
    ),
    Family(
        kind="transform",
        name="clip of values by hand",
        base=clip_value,
        args=({"max_value": 0.3},),
        needed={"leafwise": True},
        like={"like": lambda max_value: optim.clip_by_value(max_value)},
        bugs=variants(
            clip_value,
            "one side",
            "absolute values",
            "by the largest of a leaf",
            "zeroed instead of clipped",
        ),
    ),
    Family(
        kind="schedule",
        name="warm-up and cosine by hand",
        base=warm,
        args=({"peak": 1.0, "warmup_steps": 4, "total_steps": 20, "end": 0.1},),
        declared={
            "peak": 1.0,
            "warmup_steps": 4,
            "total_steps": 20,
            "end": 0.1,
            "start": 0.0,
            "monotone": "falling",
        },
        like={
            "like": lambda peak, warmup_steps, total_steps, end: schedules.warmup_cosine(
                peak=peak, warmup_steps=warmup_steps, total_steps=total_steps, end=end
            )
        },
        bugs=variants(
            warm,
            "steps from one",
            "warm-up from one",
            "warm-up is integer",
            "fraction of all steps",
            "not clipped",
            "half the cosine",
            "cosine of a whole turn",
            "end is added",
            "sine",
            "end is a fraction of zero",
            "warm-up of one step more",
            "jump after the warm-up",
            "no warm-up",
        ),
    ),
    Family(
        kind="schedule",
        name="linear by hand",
        base=linear,
        args=({"start": 1.0, "end": 0.1, "total_steps": 10},),
        declared={"start": 1.0, "end": 0.1, "total_steps": 10, "monotone": "falling"},
        like={
            "like": lambda start, end, total_steps: (
                lambda step: jnp.interp(
                    jnp.asarray(step).astype(F32), jnp.array([0.0, 10.0]), jnp.array([1.0, 0.1])
                )
            )
        },
        bugs=variants(
            linear,
            "an end early",
            "integer division",
            "goes on below the end",
            "start and end swapped",
            "to zero",
            "quadratic",
        ),
    ),
    Family(
        kind="schedule",
        name="exponential by hand",
        base=exponential,
        args=({"start": 1.0, "rate": 0.5, "decay_steps": 4}, {0: 1.0, 4: 0.5, 6: 0.5**1.5}),
        declared={"start": 1.0, "monotone": "falling"},
        bugs=variants(
            exponential,
            "staircase",
            "rate by step",
            "natural exponential",
            "steps count twice",
            "starts at the first decay",
        ),
    ),
    Family(
        kind="schedule",
        name="restarts by hand",
        base=cycles,
        args=({"low": 0.1, "high": 1.0, "period": 8},),
        declared={"peak": 1.0, "start": 1.0, "period": 8},
        like={
            "like": lambda low, high, period: (
                lambda step: (
                    0.1 + 0.45 * (1 + jnp.cos(jnp.pi * (jnp.asarray(step) % 8).astype(F32) / 8))
                )
            )
        },
        bugs=variants(
            cycles,
            "period of one more",
            "no remainder",
            "phase from the second step",
            "half a turn",
            "low and high swapped",
        ),
    ),
    Family(
        kind="schedule",
        name="inverse square root by hand",
        base=inverse_root,
        args=({"peak": 1.0, "warmup_steps": 4},),
        declared={"peak": 1.0, "warmup_steps": 4, "start": 0.0, "monotone": "falling"},
        like={
            "like": lambda peak, warmup_steps: schedules.inverse_sqrt(
                peak=peak, warmup_steps=warmup_steps
            )
        },
        bugs=variants(
            inverse_root,
            "inverse",
            "not scaled by the warm-up",
            "division by zero",
            "maximum",
        ),
    ),
    Family(
        kind="initializer",
        name="Glorot by hand",
        base=glorot,
        args=((40, 60),),
        declared={
            "std": lambda s: float(np.sqrt(2 / ((s[-1] + s[-2]) * np.prod(s[:-2])))),
            "shapes": [(60, 40), (3, 3, 10, 20)],
            "distribution": "uniform",
        },
        like={"like": initializers.glorot_uniform()},
        bugs=variants(
            glorot,
            "receptive field is not counted",
            "standard deviation as limit",
            "fan in twice",
            "three instead of six",
            "from zero",
            "the key is ignored",
            "one row for all",
            "float32 whatever is asked",
        ),
    ),
    Family(
        kind="initializer",
        name="He by hand",
        base=he,
        args=((40, 60),),
        declared={
            "std": lambda s: float(np.sqrt(2 / (s[-2] * np.prod(s[:-2])))),
            "shapes": [(60, 40), (3, 3, 10, 20), (30, 30)],
            "distribution": "normal",
        },
        like={"like": initializers.he_normal()},
        bugs=variants(
            he,
            "fan out",
            "last axis as input",
            "gain of one",
            "gain squared",
            "variance as standard deviation",
            "absolute values",
            "cut without rescaling",
            "mean of a tenth",
            "NumPy's generator",
        ),
    ),
    Family(
        kind="initializer",
        name="orthogonal by hand",
        base=orthogonal,
        args=((40, 40),),
        needed={"orthogonal": True},
        declared={"shapes": [(20, 40), (40, 20), (2, 2, 5, 10)]},
        like={"like": initializers.orthogonal()},
        bugs=variants(
            orthogonal,
            "signs are not fixed",
            "R instead of Q",
            "uniform instead of normal draws, not orthogonal",
            "scaled by its size",
            "orthogonal within an axis only",
        ),
    ),
    Family(
        kind="metric",
        name="accuracy by hand",
        base=accuracy(),
        args=(LOGITS, LABELS),
        declared={
            "best": (10.0 * jnp.eye(4), jnp.arange(4), 1.0),
            "worst": (jnp.eye(4), (jnp.arange(4) + 1) % 4, 0.0),
            "bounds": (0.0, 1.0),
        },
        like={"like": metrics.accuracy()},
        bugs={
            bug: accuracy(bug)
            for bug in (
                "argmax over the batch",
                "argmin",
                "last class is never found",
                "mean in measure",
                "count in bfloat16",
                "count in 8 bits",
                "within one class",
                "first example twice",
                "misses",
                "hits of each example",
                "weights by position",
                "a count of one more",
            )
        },
    ),
    Family(
        kind="metric",
        name="R squared by hand",
        base=r_squared(),
        args=(Y, T),
        declared={"best": (T, T, 1.0), "worst": (jnp.full(9, T.mean()), T, 0.0)},
        like={"like": numpy_r_squared},
        bugs={
            bug: r_squared(bug)
            for bug in (
                "mean of the batch in measure",
                "absolute errors",
                "around zero",
                "square is not divided",
                "not one minus",
                "swapped",
                "root",
            )
        },
    ),
    Family(
        kind="metric",
        name="F1 by hand",
        base=f1(),
        args=(Y, FLAGS),
        declared={
            "best": (2.0 * FLAGS.astype(F32) - 1, FLAGS, 1.0),
            "worst": (1 - 2.0 * FLAGS.astype(F32), FLAGS, 0.0),
            "bounds": (0.0, 1.0),
        },
        like={"like": numpy_f1},
        bugs={
            bug: f1(bug)
            for bug in (
                "threshold of a half",
                "rate in measure",
                "precision",
                "recall",
                "half of it",
                "mean of precision and recall",
            )
        },
    ),
]
