"""The interactive views of the chapters: thin shells around plain functions that draw a picture and
say it in words."""
