"""Tests of images in and out."""
