"""Engines: the encoded files of images in, a few integers per image out."""
