"""Inverse roots and eigenbases of symmetric matrices, with derivatives that stay finite."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def inverse_root(a: Float[Array, "*k n n"], order: int) -> Float[Array, "*k n n"]:
    """A^(-1/order) of symmetric positive semidefinite matrices; of zeros, the identity.

    Eigenvalues are clipped from below at eps times the largest. The derivative is by divided
    differences, so it is finite where eigenvalues coincide.

    Source: the derivative: Daleckii & Krein 1965; Higham 2008, Functions of Matrices, Theorem 3.11.
    """
    return _root(a, order)[0]


@inverse_root.defjvp
def _inverse_root_jvp(
    order: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    root, vectors, powers = _root(primals[0], order)
    # f[i, j] = (f(w_i) - f(w_j)) / (w_i - w_j) for f(w) = w^(-1/p), without the cancellation:
    # with s = w^(-1/p), w_i - w_j = s_i^-p - s_j^-p, whose quotient by s_i - s_j is a sum.
    s, t = powers[..., :, None], powers[..., None, :]
    total = sum(s ** (k - order) * t ** (-1 - k) for k in range(order))
    inner = vectors.mT @ tangents[0] @ vectors
    return root, vectors @ (-inner / total) @ vectors.mT


def _root(a: Array, order: int) -> tuple[Array, Array, Array]:
    values, vectors = jnp.linalg.eigh(a)
    largest = values[..., -1:]
    values = jnp.maximum(values, jnp.finfo(a.dtype).eps * largest)
    values = jnp.where(largest > 0, values, 1)
    powers = values ** (-1 / order)
    return (vectors * powers[..., None, :]) @ vectors.mT, vectors, powers


@jax.custom_jvp
def eigenbasis(a: Float[Array, "*k n n"]) -> Float[Array, "*k n n"]:
    """Eigenvectors of symmetric matrices in columns, in order of descending eigenvalues.

    Derivatives between vectors of equal eigenvalues, which are arbitrary, are taken as 0.
    """
    return jnp.linalg.eigh(a)[1][..., ::-1]


@eigenbasis.defjvp
def _eigenbasis_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (a,), (da,) = primals, tangents
    values, vectors = jnp.linalg.eigh(a)
    values, vectors = values[..., ::-1], vectors[..., ::-1]
    gaps = values[..., None, :] - values[..., :, None]
    distinct = jnp.abs(gaps) > 8 * jnp.finfo(a.dtype).eps * jnp.abs(values).max(-1)[..., None, None]
    turn = jnp.where(distinct, 1 / jnp.where(distinct, gaps, 1), 0)
    return vectors, vectors @ (turn * (vectors.mT @ da @ vectors))


@jax.custom_jvp
def orthonormal(a: Float[Array, "*k n n"]) -> Float[Array, "*k n n"]:
    """Q of a = Q R, for square matrices, with a diagonal of R that is at least 0.

    Derivatives along columns that depend on those before, which are arbitrary, are taken as 0.
    """
    return _qr(a)[0]


@orthonormal.defjvp
def _orthonormal_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (a,), (da,) = primals, tangents
    q, r = _qr(a)
    diagonal = jnp.diagonal(r, axis1=-2, axis2=-1)
    largest = jnp.abs(diagonal).max(-1, keepdims=True)
    full = jnp.abs(diagonal) > 8 * jnp.finfo(a.dtype).eps * largest
    identity = jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape)
    r = r + jnp.where(full, 0, 1)[..., None, :].astype(a.dtype) * identity
    inner = q.mT @ jnp.where(full[..., None, :], da, 0)
    turn = jax.lax.linalg.triangular_solve(r, inner, left_side=False, lower=False)
    lower = jnp.tril(turn, -1)
    return q, q @ (lower - lower.mT)


def _qr(a: Array) -> tuple[Array, Array]:
    q, r = jnp.linalg.qr(a)
    signs = jnp.where(jnp.diagonal(r, axis1=-2, axis2=-1) < 0, -1, 1).astype(a.dtype)
    return q * signs[..., None, :], r * signs[..., :, None]
