"""The checks of the exercises: kit.py has what all of them share, chNN.py those of chapter NN,
which `sft_lab.course.checks.check` loads when asked."""
