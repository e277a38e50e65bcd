"""Optimizers in float64, written from the papers: one weight, all steps.

`grads` are the gradients of each step, `rates` its learning rate, `decays` what it takes off the weights: rate times
weight decay. Decay comes first, which matters where the step depends on the weights.
"""

import numpy as np


def sgd(w, grads, decays, *, rates):
    for g, rate, decay in zip(grads, rates, decays, strict=True):
        w = w - rate * g - decay * w
    return w


def momentum(w, grads, decays, *, rates, m):
    """Sutskever et al. 2013, eqs. 1 and 2."""
    v = np.zeros_like(w)
    for g, rate, decay in zip(grads, rates, decays, strict=True):
        v = m * v - rate * g
        w = w + v - decay * w
    return w


def nesterov(w, grads, decays, *, rates, m):
    v = np.zeros_like(w)
    for g, rate, decay in zip(grads, rates, decays, strict=True):
        v = m * v - rate * g
        w = w + m * v - rate * g - decay * w
    return w


def momentum_of_gradients(w, grads, decays, *, rates, m, look_ahead=False):
    """The convention of torch: the velocity is a sum of gradients, the rate of the step multiplies all of it."""
    for step, (rate, decay) in enumerate(zip(rates, decays, strict=True)):
        v = sum(m ** (step - past) * grads[past] for past in range(step + 1))
        w = w - rate * (grads[step] + m * v if look_ahead else v) - decay * w
    return w


def adam(w, grads, decays, *, rates, b1, b2, epsilon, largest=False):
    """Kingma & Ba 2015, end of section 2; the decay of Loshchilov & Hutter 2019, algorithm 2, line 12.

    With `largest`, the maximum of Reddi et al. 2018, algorithm 2.
    """
    m, v, top = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t, (g, rate, decay) in enumerate(zip(grads, rates, decays, strict=True), start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        top = np.maximum(top, v)
        rate_t = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
        w = w - rate_t * m / (np.sqrt(top if largest else v) + epsilon) - decay * w
    return w


def nadam(w, grads, decays, *, rates, b1, b2, epsilon, psi):
    """Dozat 2015, algorithm 8, with the momenta of its section 2.2 (0.96 to the power t / 250)."""
    m, n = np.zeros_like(w), np.zeros_like(w)
    mu = b1 * (1 - 0.5 * 0.96 ** (psi * np.arange(1, len(grads) + 2)))
    for t, (g, rate, decay) in enumerate(zip(grads, rates, decays, strict=True), start=1):
        g_hat = g / (1 - np.prod(mu[:t]))
        m = b1 * m + (1 - b1) * g
        m_hat = m / (1 - np.prod(mu[: t + 1]))
        n = b2 * n + (1 - b2) * g**2
        n_hat = n / (1 - b2**t)
        m_bar = (1 - mu[t - 1]) * g_hat + mu[t] * m_hat
        w = w - rate * m_bar / (np.sqrt(n_hat) + epsilon) - decay * w
    return w


def adamax(w, grads, decays, *, rates, b1, b2, epsilon):
    """Kingma & Ba 2015, algorithm 2, with Keras' epsilon."""
    m, u = np.zeros_like(w), np.zeros_like(w)
    for t, (g, rate, decay) in enumerate(zip(grads, rates, decays, strict=True), start=1):
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, np.abs(g))
        w = w - rate / (1 - b1**t) * m / (u + epsilon) - decay * w
    return w


def adagrad(w, grads, decays, *, rates, initial, epsilon):
    """Duchi et al. 2011, section 1.1, with Keras' epsilon."""
    for t, (g, rate, decay) in enumerate(zip(grads, rates, decays, strict=True), start=1):
        w = w - rate * g / np.sqrt(initial + np.sum(np.square(grads[:t]), axis=0) + epsilon) - decay * w
    return w


def adadelta(w, grads, decays, *, rates, rho, epsilon):
    """Zeiler 2012, algorithm 1."""
    squares, changes = np.zeros_like(w), np.zeros_like(w)
    for g, rate, decay in zip(grads, rates, decays, strict=True):
        squares = rho * squares + (1 - rho) * g**2
        change = -np.sqrt(changes + epsilon) / np.sqrt(squares + epsilon) * g
        changes = rho * changes + (1 - rho) * change**2
        w = w + rate * change - decay * w
    return w


def rmsprop(w, grads, decays, *, rates, rho, epsilon, centered, m):
    """Hinton 2012, lecture 6e; Graves 2013, eqs. 38-41 where centered."""
    n, mean, delta = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for g, rate, decay in zip(grads, rates, decays, strict=True):
        n = rho * n + (1 - rho) * g**2
        mean = rho * mean + (1 - rho) * g
        delta = m * delta - rate * g / np.sqrt(n - centered * mean**2 + epsilon)
        w = w + delta - decay * w
    return w


def adafactor(w, grads, decays, *, rates, power, epsilon_1, epsilon_2, d, relative=True):
    """Shazeer & Stern 2018, algorithms 4 (matrices, with sums) and 5 (vectors)."""
    rows, columns, whole = 0.0, 0.0, np.zeros_like(w)
    for t, (g, rate, decay) in enumerate(zip(grads, rates, decays, strict=True), start=1):
        w = w - decay * w
        alpha = rate * (max(epsilon_2, np.sqrt(np.mean(w**2))) if relative else 1.0)
        beta, square = 1 - t**-power, g**2 + epsilon_1
        if w.ndim > 1:
            rows = beta * rows + (1 - beta) * square.sum(-1)
            columns = beta * columns + (1 - beta) * square.sum(-2)
            total = rows.sum(-1)[..., None, None]
            whole = np.einsum("...i,...j->...ij", rows, columns) / total
        else:
            whole = beta * whole + (1 - beta) * square
        u = g / np.sqrt(whole)
        w = w - alpha * u / max(1.0, np.sqrt(np.mean(u**2)) / d)
    return w


def lion(w, grads, decays, *, rates, b1, b2):
    """Chen et al. 2023, algorithm 2."""
    m = np.zeros_like(w)
    for g, rate, decay in zip(grads, rates, decays, strict=True):
        c = b1 * m + (1 - b1) * g
        w = w - rate * np.sign(c) - decay * w
        m = b2 * m + (1 - b2) * g
    return w


def lamb(w, grads, decays, *, rates, b1, b2, epsilon, inside=False, everywhere=False):
    """You et al. 2020, algorithm 2; `inside`: with the paper's decay. Vectors are scaled only `everywhere`."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (g, rate, decay) in enumerate(zip(grads, rates, decays, strict=True), start=1):
        w = w if inside else w - decay * w
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        r = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)
        r = r + decay / rate * w if inside else r
        scaled = everywhere or w.ndim > 1
        w = w - rate * (np.linalg.norm(w) / np.linalg.norm(r) if scaled and r.any() else 1.0) * r
    return w


def lars(w, grads, decays, *, rates, m, trust, inside=False, everywhere=False):
    """You et al. 2017, algorithm 1; `inside`: with the paper's decay. Vectors are scaled only `everywhere`."""
    v = np.zeros_like(w)
    for g, rate, decay in zip(grads, rates, decays, strict=True):
        w = w if inside else w - decay * w
        beta = decay / rate if inside else 0.0
        local = 1.0
        if everywhere or w.ndim > 1:
            local = trust * np.linalg.norm(w) / (np.linalg.norm(g) + beta * np.linalg.norm(w))
        v = m * v + rate * local * (g + beta * w)
        w = w - v
    return w


def muon(w, grads, decays, *, rates, m, rms, b1, b2, epsilon, look_ahead=True):
    """Jordan et al. 2024 by singular values; Liu et al. 2025, eq. 4. Vectors: Kingma & Ba 2015, algorithm 1."""
    v, mean, square = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t, (g, rate, decay) in enumerate(zip(grads, rates, decays, strict=True), start=1):
        v = m * v + g
        mean = b1 * mean + (1 - b1) * g
        square = b2 * square + (1 - b2) * g**2
        if w.ndim > 1:
            step = orthogonal((g + m * v if look_ahead else v).reshape(-1, w.shape[-1]))
            step = (rms * np.sqrt(max(step.shape)) * step).reshape(w.shape)
        else:
            step = mean / (1 - b1**t) / (np.sqrt(square / (1 - b2**t)) + epsilon)
        w = w - rate * step - decay * w
    return w


def orthogonal(matrix):
    """Five steps of the quintic of Jordan et al. act on each singular value by itself."""
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ np.diag(s) @ vh
