"""Long trajectories of Lorenz '63 from windows of five states, with noisy observations."""
