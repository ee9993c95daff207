"""Station "ground": numbers as text, the same way everywhere."""


def format_count(count: int) -> str:
    """Three digits and a unit: 1049856 -> '1.05 M', 134515008 -> '135 M'."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        # 999,500 is written "1.00 M": three digits of thousands would round to "1000 k"
        if count >= 0.9995 * size:
            value = count / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
    return str(count)


def format_percent(fraction: float) -> str:
    """0.975 -> "97.5 %", 1.0 -> "100 %"; what is not 0 or 100 % is never rounded to it."""
    text = f"{100 * fraction:.1f}".removesuffix(".0")
    if text in ("0", "100") and fraction not in (0.0, 1.0):
        text = "< 0.1" if text == "0" else "> 99.9"
    return f"{text} %"
