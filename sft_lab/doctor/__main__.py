"""python -m sft_lab.doctor"""

from sft_lab.doctor.command import main

if __name__ == "__main__":
    main()
