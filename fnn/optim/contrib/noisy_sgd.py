"""SGD with gradient noise."""

from fnn.expect import within
from fnn.optim.sgd import sgd
from fnn.optim.transforms import add_noise, chain
from fnn.types import Optimizer, PRNGKey, Scalar


@within(eta="[0, inf)", gamma="[0, inf)")
def noisy_sgd(key: PRNGKey, *, eta: Scalar = 0.01, gamma: Scalar = 0.55) -> Optimizer:
    """Gradient descent with normal noise, whose variance decays with the step.

        update = -lr (g + sqrt(eta / (1 + t)^gamma) N(0, 1)),   t = 0, 1, ...

    It is `chain(add_noise(key, eta=eta, gamma=gamma), sgd())`, in which sgd may be any optimizer.

    Args:
      key, eta, gamma: as in `add_noise`.

    State: (the step, ()).
    Source: Neelakantan et al. 2015, arXiv:1511.06807. Compat: `optax.noisy_sgd`, with other draws.

    >>> opt, params = noisy_sgd(jax.random.key(0), eta=0.25), {'w': jnp.zeros(10_000)}
    >>> updates, _ = opt.update({'w': jnp.ones(10_000)}, opt.init(params), params, 2.0)
    >>> updates['w'].mean().round(1).item(), updates['w'].std().round(1).item()
    (-2.0, 1.0)
    """
    return chain(add_noise(key, eta=eta, gamma=gamma), sgd())
