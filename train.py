"""Trains one network, or with -m a sweep of them: python train.py optimizer=adamw schedule=warmup_cosine."""

import hydra
from omegaconf import DictConfig

from descent.entry import run_train, start


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float:
    return start(config)


if __name__ == "__main__":
    run_train(main)
