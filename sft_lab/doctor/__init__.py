"""The doctor: examines a data set, the template, the model and the adapter before a run is paid
for.

    diagnosis = diagnose("my.jsonl", model="atlas-base")
    print(diagnosis.table())
"""

from sft_lab.doctor.checks import ExaminationError
from sft_lab.doctor.examine import diagnose

__all__ = ["ExaminationError", "diagnose"]
