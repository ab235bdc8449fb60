"""Engines: encoded label maps in, one confusion matrix per image out."""
