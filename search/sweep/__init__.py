"""`hydra/sweeper=hybridsim`: Optuna behind `-m` of any command; its plugin is in hydra_plugins/."""
