"""A spec and what may change in it -> many trainings, and the best settings among them."""
