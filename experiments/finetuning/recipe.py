"""The recipe's SGD on the encoder of a pretrained SIBERT, instead of LAMB: seed 0."""


def sweep():
    """For two tasks, three speeds of the encoder with a fast head and one with a slow head."""
    for task in ("sst2", "mrpc"):
        for eta_lambda, head_rate in ((1e-5, 1e-2), (1e-4, 1e-2), (1e-3, 1e-2), (1e-4, 1e-3)):
            yield {
                "panel": task,
                "config": f"experiments/finetuning/config.py:task={task},arch=sibert,optim=recipe",
                "checkpoint.init_from": "runs/mini_sibert",
                "optim.eta_lambda": eta_lambda,
                "optim.head.learning_rate": head_rate,
            }
