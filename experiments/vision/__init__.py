"""The study of number formats on images."""
