//! Rollouts of versions that are equal.
