"""Station "ground": numbers as text, the same way everywhere."""


def format_count(count: int) -> str:
    """Three digits and a unit: 1049856 -> '1.05 M', 134515008 -> '135 M'."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        # 999,500 is written "1.00 M": three digits of thousands would round to "1000 k"
        if count >= 0.9995 * size:
            value = count / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
    return str(count)


def format_number_of(count: int, noun: str) -> str:
    """1, "question" -> "1 question"; 0 or 2 -> "2 questions"."""
    return f"{count} {noun}" + "s" * (count != 1)


def format_percent(fraction: float) -> str:
    """0.975 -> "97.5 %", 1.0 -> "100 %"; what is not 0 or 100 % is never rounded to it."""
    text = f"{100 * fraction:.1f}".removesuffix(".0")
    if text in ("0", "100") and fraction not in (0.0, 1.0):
        text = "< 0.1" if text == "0" else "> 99.9"
    return f"{text} %"


def format_bytes(count: float) -> str:
    """Three digits and a unit: 65_536 -> '65.5 kB', 8_000_000_000 -> '8.00 GB'; 0 -> '0'."""
    if not count:
        return "0"
    if count < 1000:
        return f"{int(count)} B"
    return f"{format_count(int(count))}B".replace(" BB", " GB")  # a billion bytes is a giga-byte


def format_share(share: float) -> str:
    """A fraction in per cent with two digits: 0.0123 -> '1.2 %'; 0 -> '0'; 1 -> '100 %'."""
    percent = 100 * share
    if not percent:
        return "0"
    if percent >= 9.95:
        return f"{percent:.0f} %"
    two_digits = float(f"{percent:.2g}")  # and written out, for 4e-05 is hard to read
    return f"{two_digits:.4f}".rstrip("0").rstrip(".") + " %"
