"""Replays recorded exchanges of a real Reverb against Resound."""
