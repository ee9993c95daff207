"""The checks of the exercises: chNN.py holds those of chapter NN, which
`sft_lab.course.checks.check` loads when asked."""
